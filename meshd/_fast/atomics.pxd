"""Typed atomics, a short lock and the monotonic clock in nanoseconds (c/atomics.h)."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "atomics.h" nogil:
    uint64_t fast_load64(const uint64_t* p) noexcept
    void fast_store64(uint64_t* p, uint64_t v) noexcept
    uint64_t fast_peek64(const uint64_t* p) noexcept
    void fast_set64(uint64_t* p, uint64_t v) noexcept
    uint64_t fast_add64(uint64_t* p, uint64_t v) noexcept
    uint32_t fast_load32(const uint32_t* p) noexcept
    void fast_store32(uint32_t* p, uint32_t v) noexcept
    uint32_t fast_peek32(const uint32_t* p) noexcept
    uint32_t fast_swap32(uint32_t* p, uint32_t v) noexcept
    void* fast_loadp(void* const* p) noexcept
    void fast_storep(void** p, void* v) noexcept
    void* fast_swapp(void** p, void* v) noexcept
    int fast_casp(void** p, void* old, void* v) noexcept
    void fast_fence() noexcept
    void fast_lock(uint32_t* word) noexcept
    void fast_unlock(uint32_t* word) noexcept
    uint64_t fast_now() noexcept
