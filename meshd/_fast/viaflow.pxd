"""C API of the flow memory of via addresses: which IPv4 flows of peers came in as IPv6, and from where.

Set-associative like the filter's flow table, with a time to live per protocol. A flow is found by what its IPv4 answers
carry; how it began is stored with it. Look-ups take no lock; only a new flow does, for the set that it goes into.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    VIA_SETS = 4096
    VIA_WAYS = 8
    VIA_FRAGMENT = 256              # added to the protocol: a packet in fragments, ports are its identification and 0

# Idle times, in ticks.
cdef enum:
    VIA_TCP_OPEN = 6935             # 2 h 4 min (RFC 5382 REQ-5)
    VIA_TCP_OTHER = 224             # 4 min: half open, closed or reset
    VIA_UDP = 280                   # 5 min (RFC 4787 REQ-5)
    VIA_ICMP = 56                   # 1 min (RFC 5508 REQ-2)
    VIA_PARTS = 14                  # 15 s

cdef enum via_claim_t:
    VIA_CLAIM_KNOWN = 0
    VIA_CLAIM_NEW = 1
    VIA_CLAIM_EVICTED = 2           # new, and another had to be forgotten for it
    VIA_CLAIM_NONE = 3              # its port and all replacements are in use by others

cdef struct via_key_t:              # host order
    uint32_t host                   # the IPv4 host
    uint32_t peer                   # the IPv4 address that stands for the peer
    uint16_t proto                  # IP protocol of the IPv4 side, VIA_FRAGMENT added for fragments
    uint16_t port                   # the peer's port or the echo identifier, as the host sees it
    uint16_t host_port

cdef struct via_flow_t:
    uint64_t source[2]              # the IPv6 address that began it, as it lies in memory
    uint32_t site
    uint16_t port                   # its port or echo identifier there

cdef struct via_set_t:
    uint32_t version                # odd while a writer changes the set
    uint32_t pad
    uint32_t deadlines[8]           # tick after which it is forgotten; 0: empty
    uint32_t states[8]
    int32_t peers[8]                # whose flow it is
    uint64_t words[8][5]            # host and peer; protocol and ports; source; site and port

cdef struct via_flows_t:
    uint64_t seed
    via_set_t* sets

cdef class ViaFlows:
    cdef via_flows_t* c

cdef inline uint32_t via_tick_c(uint64_t now) noexcept nogil:
    """Ticks are a little more than a second, of a clock in nanoseconds."""
    return <uint32_t> (now >> 30)

# A packet from the peer: key.port becomes the port for the IPv4 side. With tcp_flags of TCP, else 0. Any thread.
cdef via_claim_t viaflow_claim_c(via_flows_t* flows, via_key_t* key, const via_flow_t* flow, int32_t peer,
                                 uint8_t tcp_flags, uint32_t tick) noexcept nogil

# The same for a flow that must be known: 0 when it is not; nothing is changed.
cdef bint viaflow_known_c(via_flows_t* flows, via_key_t* key, const via_flow_t* flow, uint32_t tick) noexcept nogil

# A packet to the peer: 0 when it answers nothing that came in here. refresh: it counts as use.
cdef bint viaflow_answer_c(via_flows_t* flows, const via_key_t* key, via_flow_t* flow, uint8_t tcp_flags, bint refresh,
                           uint32_t tick) noexcept nogil

# Whether a live flow, not a closed one, has this key.
cdef bint viaflow_taken_c(via_flows_t* flows, const via_key_t* key, uint32_t tick) noexcept nogil

# The first fragment of an answer: the others are found by key.
cdef void viaflow_parts_c(via_flows_t* flows, const via_key_t* key, const via_flow_t* flow,
                          uint32_t tick) noexcept nogil
