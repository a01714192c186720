"""What a node translates: via addresses stand for the IPv4 networks of a numbered site.

fd7a:115c:a1e0:b1a::/64, then 32 bits of the site and 32 of the IPv4 address. The last 64 bits as one number order them.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from meshd._fast.lpm cimport lpm_t
from meshd._fast.netbytes cimport put32be
from meshd._fast.viaflow cimport via_flows_t

cdef extern from "address.h" nogil:
    uint64_t load_be64(const uint8_t* p)

cdef enum:
    VIA_HEADROOM = 64               # bytes before a packet from the TUN that translation may need; 40 for ICMP errors

cdef struct via_range_t:
    uint64_t first
    uint64_t last

cdef struct via_t:                  # what packet threads read; does not change once published
    uint32_t count
    uint32_t own4                   # our IPv4 address, 0 = none
    uint8_t own6[16]                # the source of what routers of a site say, zeros = none
    via_range_t* ranges             # sorted, disjoint
    via_flows_t* flows
    lpm_t* peers                    # whose address is whose, NULL = unknown

cdef inline bint via_here_c(const uint8_t* address) noexcept nogil:
    """Whether it is a via address of whatever site."""
    return load_be64(address) == <uint64_t> 0xfd7a115ca1e00b1a

cdef inline bint via_routed_c(const via_t* via, uint64_t low) noexcept nogil:
    """Whether this node offers a route to the via address with these last 64 bits."""
    cdef uint32_t first = 0, end = via.count, middle
    while first < end:
        middle = (first + end) >> 1
        if low < via.ranges[middle].first:
            end = middle
        elif low > via.ranges[middle].last:
            first = middle + 1
        else:
            return True
    return False

cdef inline uint64_t via_low_c(uint32_t site, uint32_t host) noexcept nogil:
    return <uint64_t> site << 32 | host

cdef inline void via_address_c(uint8_t* address, uint32_t site, uint32_t host) noexcept nogil:
    put32be(address, 0xfd7a115c)
    put32be(address + 4, 0xa1e00b1a)
    put32be(address + 8, site)
    put32be(address + 12, host)
