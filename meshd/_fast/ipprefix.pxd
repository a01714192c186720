"""C API of IP prefixes: left-aligned 128-bit addresses (c/address.h) and inclusive ranges (c/ranges.h)."""

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "ranges.h" nogil:
    ctypedef struct ip_range_t:
        uint64_t first_hi
        uint64_t first_lo
        uint64_t last_hi
        uint64_t last_lo
    void range_of_prefix(ip_range_t* r, uint64_t hi, uint64_t lo, int bits)
    int range_contains(const ip_range_t* r, uint64_t hi, uint64_t lo)
    int range_take_prefix(ip_range_t* r, uint64_t* hi, uint64_t* lo, int* bits)
    int range_compare(const void* a, const void* b)
    size_t ranges_normalise(ip_range_t* items, size_t n)
    ptrdiff_t ranges_find(const ip_range_t* items, size_t n, uint64_t hi, uint64_t lo)
    size_t ranges_subtract(const ip_range_t* a, size_t a_n, const ip_range_t* b, size_t b_n, ip_range_t* out)
    size_t ranges_intersect(const ip_range_t* a, size_t a_n, const ip_range_t* b, size_t b_n, ip_range_t* out)

cdef extern from "address.h" nogil:
    uint32_t load_be32(const uint8_t* p)
    uint64_t load_be64(const uint8_t* p)
    void store_be32(uint8_t* p, uint32_t v)
    void store_be64(uint8_t* p, uint64_t v)
    uint64_t mask_hi(int bits)
    uint64_t mask_lo(int bits)
    int equal_bits(uint64_t a_hi, uint64_t a_lo, uint64_t b_hi, uint64_t b_lo)


cdef inline int width_c(int family) noexcept nogil:
    return 32 if family == 4 else 128


cdef inline void address_load_c(const uint8_t* addr, int family, uint64_t* hi, uint64_t* lo) noexcept nogil:
    if family == 4:
        hi[0] = <uint64_t>load_be32(addr) << 32
        lo[0] = 0
    else:
        hi[0] = load_be64(addr)
        lo[0] = load_be64(addr + 8)


cdef inline void address_store_c(uint8_t* addr, int family, uint64_t hi, uint64_t lo) noexcept nogil:
    if family == 4:
        store_be32(addr, <uint32_t>(hi >> 32))
    else:
        store_be64(addr, hi)
        store_be64(addr + 8, lo)


# An inclusive range of packed addresses.
cdef inline void range_load_c(ip_range_t* r, const uint8_t* first, const uint8_t* last, int family) noexcept nogil:
    address_load_c(first, family, &r.first_hi, &r.first_lo)
    address_load_c(last, family, &r.last_hi, &r.last_lo)
    if family == 4:
        r.last_hi |= ~mask_hi(32)
        r.last_lo = ~mask_lo(32)


cdef class Prefix:
    cdef readonly int family
    cdef readonly int bits
    cdef uint64_t hi
    cdef uint64_t lo

# The prefix of a left-aligned address without host bits.
cdef Prefix prefix_make(int family, uint64_t hi, uint64_t lo, int bits)
# 4 or 6 by the size of a packed address; ValueError for another size.
cdef int family_of(bytes address) except -1
# Appends the fewest prefixes that make up the range.
cdef int append_prefixes(list out, int family, ip_range_t r) except -1
# ValueError when the ends are of two families or reversed.
cdef int range_from(ip_range_t* r, bytes first, bytes last) except -1
