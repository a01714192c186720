/* What atomic.h lacks for the packet threads: read-modify-write, a short lock, the clock. */
#ifndef MESHD_ATOMICS_H
#define MESHD_ATOMICS_H

#include <sched.h>
#include <time.h>

#include "atomic.h"

static inline uint64_t fast_add64(uint64_t *p, uint64_t v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
static inline uint32_t fast_swap32(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
static inline void *fast_swapp(void **p, void *v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
static inline int fast_casp(void **p, void *old, void *v)
{
    return __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline void fast_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* A lock for sections of a few dozen instructions; waiting threads give up their time slice,
   because the holder may be preempted on a machine with one core. */
static inline void fast_lock(uint32_t *word)
{
    unsigned spins = 0;
    while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE))
        if (++spins > 64)
            sched_yield();
}
static inline void fast_unlock(uint32_t *word) { __atomic_store_n(word, 0, __ATOMIC_RELEASE); }

/* CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t fast_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
