"""C API of the way from a via address to the IPv4 host: IPv6 packets of peers become IPv4 ones.

TCP, UDP, echo requests and ICMP errors, TCP and UDP also in fragments; nothing else. The source is the peer's own IPv4
address, which leads the answers back here, whatever the host does for routers. A port that this makes ambiguous is
replaced by another.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from meshd._fast.packet cimport packet_info_t
from meshd._fast.viaroutes cimport via_t

cdef enum via_in_result_t:
    VIA_IN_DONE = 0
    VIA_IN_OTHER = 1                # no address that we translate
    VIA_IN_NO_IPV4 = 2              # the peer has no IPv4 address
    VIA_IN_REFUSED = 3              # cannot be translated, or not to this address
    VIA_IN_NO_PORT = 4              # its port and the replacements are in use by other flows
    VIA_IN_NO_FLOW = 5              # an error or answer to nothing that we sent

cdef struct via_in_t:
    uint8_t* packet                 # within the old one
    uint32_t bytes
    uint32_t evicted                # flows that were forgotten for this one

# An IPv6 packet, checked and parsed, is translated in place. source: the peer's IPv4 address as in a packet, 0 = none;
# mtu: the tunnel's, at least 1280. What is not translated is not changed.
cdef via_in_result_t via_in_c(const via_t* via, uint8_t* packet, const packet_info_t* info, uint32_t source,
                              int32_t peer, uint32_t mtu, uint16_t ident, uint32_t tick, via_in_t* out) noexcept nogil

# Whether an IPv4 packet of a peer has the ports of a flow that came in by a via address: answers would go astray.
cdef bint via_clash_c(const via_t* via, const packet_info_t* info, uint32_t tick) noexcept nogil
