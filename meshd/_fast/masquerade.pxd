"""C API of address masquerading: the addresses of ours that one peer knows us by.

A peer of another network, or a WireGuard peer without a coordination server, may know us by other addresses than the
ones we have. What goes to it shows those as source, and what comes from it for them is for us.
"""

from libc.stdint cimport uint8_t, uint32_t

from meshd._fast.packet cimport packet_info_t

cdef struct masquerade_t:
    uint32_t v4                     # whether there is an IPv4 pair
    uint32_t v6
    uint8_t own4[4]
    uint8_t shown4[4]
    uint8_t own6[16]
    uint8_t shown6[16]

cdef class Masquerade:
    cdef masquerade_t c

# Outbound: the source, where it is our own address. With partial the transport checksum field holds the sum of the
# pseudo header only, as the kernel leaves it for offload.
cdef void masquerade_out_c(const masquerade_t* masquerade, uint8_t* packet, const packet_info_t* info,
                           int partial) noexcept nogil

# Inbound: the destination, where it is the address that the peer knows.
cdef void masquerade_in_c(const masquerade_t* masquerade, uint8_t* packet, const packet_info_t* info) noexcept nogil
