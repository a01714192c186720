"""Typed atomics, a short lock and the monotonic clock in nanoseconds (c/atomic.h, c/atomics.h)."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "atomics.h" nogil:
    uint64_t fast_load64 "load_acquire_u64"(const uint64_t* p) noexcept
    void fast_store64 "store_release_u64"(uint64_t* p, uint64_t v) noexcept
    uint64_t fast_peek64 "load_relaxed_u64"(const uint64_t* p) noexcept
    void fast_set64 "store_relaxed_u64"(uint64_t* p, uint64_t v) noexcept
    uint64_t fast_add64(uint64_t* p, uint64_t v) noexcept
    uint32_t fast_load32 "load_acquire_u32"(const uint32_t* p) noexcept
    void fast_store32 "store_release_u32"(uint32_t* p, uint32_t v) noexcept
    uint32_t fast_peek32 "load_relaxed_u32"(const uint32_t* p) noexcept
    uint32_t fast_swap32(uint32_t* p, uint32_t v) noexcept
    void* fast_loadp "load_acquire_ptr"(void* const* p) noexcept
    void fast_storep "store_release_ptr"(void** p, void* v) noexcept
    void* fast_swapp(void** p, void* v) noexcept
    int fast_casp(void** p, void* old, void* v) noexcept
    void fast_fence() noexcept
    void fast_lock(uint32_t* word) noexcept
    void fast_unlock(uint32_t* word) noexcept
    uint64_t fast_now() noexcept
