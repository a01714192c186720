"""C API of immutable sets of IP addresses."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from meshd._fast.ipprefix cimport ip_range_t

# Sorted, disjoint, not touching; index 0 is IPv4, 1 is IPv6.
cdef struct ipset_t:
    ip_range_t* ranges[2]
    size_t counts[2]

cdef bint ipset_contains_c(const ipset_t* addresses, const uint8_t* addr, int family) noexcept nogil

cdef class IPSet:
    cdef ipset_t c
