"""C API of the way back from an IPv4 host: answers to flows that came in by a via address become IPv6 packets.

TCP, UDP, echo replies and ICMP errors. Packets that grow beyond the tunnel's MTU are told to the host when they must
not be divided, cut smaller when they are TCP super packets, and divided otherwise. Fragments are translated: the later
ones by their identification.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from meshd._fast.packet cimport packet_info_t
from meshd._fast.segment cimport vnet_header_t
from meshd._fast.viaroutes cimport via_t

cdef enum via_out_result_t:
    VIA_OUT_PLAIN = 0               # no answer to a via flow: it goes as it is
    VIA_OUT_WHOLE = 1               # packet, bytes and vnet are what to send
    VIA_OUT_PARTS = 2               # via_part_c gives what to send
    VIA_OUT_TOO_BIG = 3             # the sender wants to be told: via_too_big_c
    VIA_OUT_CUT = 4                 # a super packet that would be too large: to be given piece by piece
    VIA_OUT_REFUSED = 5             # cannot be translated

cdef enum:
    VIA_TOO_BIG_BYTES = 96          # room for the message: a header, 8 bytes, and a header and 8 bytes of the packet

cdef struct via_out_t:
    uint8_t* packet
    uint32_t bytes
    vnet_header_t vnet
    uint32_t parts                  # how many; the rest is for via_part_c
    uint32_t part
    uint32_t offset
    uint16_t ident
    uint16_t more

# A packet from the TUN, parsed. It is translated in place and begins up to VIA_HEADROOM bytes earlier then; unless the
# result is VIA_OUT_WHOLE or VIA_OUT_PARTS it is not changed. mtu: the tunnel's, at least 1280.
cdef via_out_result_t via_out_c(const via_t* via, const vnet_header_t* vnet, uint8_t* packet,
                                const packet_info_t* info, uint32_t mtu, uint32_t tick, via_out_t* out) noexcept nogil

# Write the i-th part, of at most mtu bytes, and return its length.
cdef uint32_t via_part_c(const via_out_t* out, uint32_t i, uint8_t* at) noexcept nogil

# Write what tells the sender of this IPv4 packet which size would do; returns its length.
cdef uint32_t via_too_big_c(const uint8_t* packet, const packet_info_t* info, uint32_t mtu, uint8_t* at) noexcept nogil
