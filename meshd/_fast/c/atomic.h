/* Atomic loads and stores with the orders the lock-free structures of _fast need.
 *
 * Cython has no notion of C11 atomics; these wrap the compiler built-ins for the few widths in use. */
#ifndef MESHD_ATOMIC_H
#define MESHD_ATOMIC_H

#include <stdint.h>

static inline void *load_acquire_ptr(void *const *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
static inline void store_release_ptr(void **to, void *value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }

static inline uint64_t load_relaxed_u64(const uint64_t *from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }
static inline uint64_t load_acquire_u64(const uint64_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
static inline void store_relaxed_u64(uint64_t *to, uint64_t value) { __atomic_store_n(to, value, __ATOMIC_RELAXED); }
static inline void store_release_u64(uint64_t *to, uint64_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }

static inline uint32_t load_relaxed_u32(const uint32_t *from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }
static inline uint32_t load_acquire_u32(const uint32_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
static inline void store_relaxed_u32(uint32_t *to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELAXED); }
static inline void store_release_u32(uint32_t *to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
static inline uint32_t add_relaxed_u32(uint32_t *to, uint32_t value)
{
    return __atomic_add_fetch(to, value, __ATOMIC_RELAXED);
}

static inline int32_t load_relaxed_i32(const int32_t *from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }
static inline int32_t load_acquire_i32(const int32_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
static inline void store_relaxed_i32(int32_t *to, int32_t value) { __atomic_store_n(to, value, __ATOMIC_RELAXED); }
static inline void store_release_i32(int32_t *to, int32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }

/* 1 when *at was expected and is now wanted; acquire on success. */
static inline int swap_acquire_u32(uint32_t *at, uint32_t expected, uint32_t wanted)
{
    return __atomic_compare_exchange_n(at, &expected, wanted, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
