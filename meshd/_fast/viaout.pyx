"""From IPv4 hosts back to the peers of via addresses; the contract is in viaout.pxd."""
# freethreading: what it shares is in viaflow.pxd.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from meshd._fast.netbytes cimport get16be, get16raw, get32be, put16be, put16raw, put32be
from meshd._fast.packet cimport (
    PROTO_FRAGMENT,
    PROTO_ICMP4,
    PROTO_ICMP6,
    PROTO_TCP,
    PROTO_UDP,
    TCP_SYN,
    fold_c,
    pseudo_sum_c,
    sum_c,
)
from meshd._fast.segment cimport GSO_ECN, GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, VNET_BYTES, VNET_NEEDS_CSUM
from meshd._fast.translate cimport (
    DONT_FRAGMENT,
    FRAGMENT_BYTES,
    ICMP_BYTES,
    IP4_BYTES,
    IP6_BYTES,
    IP6_MIN_MTU,
    MORE_FRAGMENTS,
    NEXT_FRAGMENT,
    OFFSET_MASK,
    clamp_mss_c,
    header4_c,
    header6_c,
    icmp_head_t,
    icmp_to_6_c,
    icmp_write_c,
    recast_echo_c,
    retarget_c,
)
from meshd._fast.viaflow cimport VIA_FRAGMENT, via_flow_t, via_key_t, viaflow_answer_c, viaflow_parts_c
from meshd._fast.viaroutes cimport via_address_c, via_low_c, via_routed_c

cdef enum:
    ECHO_REPLY4 = 0
    ECHO4 = 8
    ECHO6 = 128
    ECHO_REPLY6 = 129
    UNREACHABLE4 = 3
    NEEDS_DIVISION = 4
    TCP_HEADERS6 = 60
    TTL = 64
    OPTION_SOURCE_ROUTE = 0x83      # and, strict, 0x89


cdef inline bint _is_error(const packet_info_t* info) noexcept nogil:
    return info.icmp_type == 3 or info.icmp_type == 11 or info.icmp_type == 12


cdef bint _answers(const via_t* via, const uint8_t* packet, const packet_info_t* info, via_key_t* key,
                   via_flow_t* flow, uint32_t tick) noexcept nogil:
    """The flow that the packet belongs to, by ports, identifier or identification."""
    key.host = get32be(info.src)
    key.peer = get32be(info.dst)
    key.proto = info.proto
    key.port = info.dst_port
    key.host_port = info.src_port
    if info.proto == PROTO_ICMP4:
        if info.icmp_type != ECHO_REPLY4 or info.total_bytes - info.l4_offset < ICMP_BYTES:
            return False
        key.port = info.icmp_id
        key.host_port = 0
    elif info.proto == PROTO_FRAGMENT:
        key.proto = VIA_FRAGMENT + packet[9]
        key.port = get16be(packet + 4)
        key.host_port = 0
    elif info.proto != PROTO_TCP and info.proto != PROTO_UDP:
        return False
    return viaflow_answer_c(via.flows, key, flow, info.tcp_flags, info.proto != PROTO_FRAGMENT, tick) and via_routed_c(
        via, via_low_c(flow.site, key.host))


cdef bint _offload(const vnet_header_t* vnet, const uint8_t* packet, const packet_info_t* info, uint32_t mtu,
                   via_out_t* out) noexcept nogil:
    """What the header says of the IPv6 packet; 0 when it does not fit the packet. parts: pieces that are too large."""
    cdef uint8_t kind = vnet.gso_type & ~GSO_ECN
    cdef uint32_t tcp, most
    memset(&out.vnet, 0, VNET_BYTES)
    out.parts = 0
    if kind == GSO_NONE and not vnet.flags & VNET_NEEDS_CSUM:
        return True
    if vnet.csum_start != info.l4_offset or vnet.csum_offset != (16 if info.proto == PROTO_TCP else 6):
        return False
    if get16be(packet + 6) & (MORE_FRAGMENTS | OFFSET_MASK):
        return False
    out.vnet = vnet[0]
    out.vnet.csum_start = IP6_BYTES
    out.vnet.hdr_len = vnet.hdr_len + IP6_BYTES - info.l4_offset
    if kind == GSO_NONE:
        out.vnet.gso_type = GSO_NONE
        return info.proto == PROTO_TCP or info.proto == PROTO_UDP
    if kind == GSO_UDP and info.proto == PROTO_UDP:
        out.parts = <uint32_t> IP6_BYTES + 8 + vnet.gso_size > mtu
        return True
    if kind != GSO_TCP4 or info.proto != PROTO_TCP:
        return False
    tcp = (packet[info.l4_offset + 12] >> 4) * 4
    most = mtu - IP6_BYTES - tcp
    if vnet.gso_size > most:
        out.vnet.gso_size = <uint16_t> most
    out.vnet.gso_type = GSO_TCP6 | (vnet.gso_type & GSO_ECN)
    return True


cdef inline bint _source_routed(const uint8_t* packet, uint32_t header) noexcept nogil:
    """Whether a source route option has somewhere left to go (RFC 7915 4.1)."""
    cdef uint32_t at = IP4_BYTES
    while at + 3 <= header and packet[at]:
        if packet[at] == 1:
            at += 1
            continue
        if packet[at] == OPTION_SOURCE_ROUTE or packet[at] == 0x89:
            return packet[at + 2] <= packet[at + 1]
        if packet[at + 1] < 2:
            return True
        at += packet[at + 1]
    return False


cdef void _finish_sum(uint8_t* l4, uint32_t n, uint8_t proto) noexcept nogil:
    """Complete a checksum that was left for offload."""
    cdef uint16_t check = <uint16_t> ~fold_c(sum_c(l4, n, 0))
    put16raw(l4 + (16 if proto == PROTO_TCP else 6), check if check else 0xFFFF)


cdef via_out_result_t _error(const via_t* via, uint8_t* packet, const packet_info_t* info, uint32_t mtu,
                             uint32_t tick, via_out_t* out) noexcept nogil:
    """An ICMP error about a packet that we translated, from the host or from a router before it."""
    cdef uint8_t heads[2 * IP6_BYTES + ICMP_BYTES]
    cdef uint8_t address[16]
    cdef uint8_t* message = packet + info.l4_offset
    cdef uint8_t* quoted = message + ICMP_BYTES     # from the peer to the host
    cdef uint8_t* l4
    cdef uint32_t rest = info.total_bytes - info.l4_offset, header, total, payload, sender = get32be(info.src)
    cdef uint64_t before, after
    cdef uint8_t kind
    cdef icmp_head_t head
    cdef via_key_t key
    cdef via_flow_t flow
    if get16be(packet + 6) & MORE_FRAGMENTS or rest < ICMP_BYTES + IP4_BYTES + 8 or quoted[0] >> 4 != 4:
        return VIA_OUT_PLAIN
    header = (quoted[0] & 15) * 4
    rest -= ICMP_BYTES
    if header < IP4_BYTES or rest < header + 8 or get16be(quoted + 6) & OFFSET_MASK:
        return VIA_OUT_PLAIN
    l4 = quoted + header
    rest -= header
    kind = quoted[9]
    key.host = get32be(quoted + 16)
    key.peer = get32be(quoted + 12)
    key.proto = kind
    key.port = get16be(l4)
    key.host_port = get16be(l4 + 2)
    if kind == PROTO_ICMP4 and l4[0] == ECHO4:
        key.port = get16be(l4 + 4)
        key.host_port = 0
    elif kind != PROTO_TCP and kind != PROTO_UDP:
        return VIA_OUT_PLAIN
    if key.peer != get32be(info.dst) or not viaflow_answer_c(via.flows, &key, &flow, 0, False, tick):
        return VIA_OUT_PLAIN
    if not via_routed_c(via, via_low_c(flow.site, key.host)):
        return VIA_OUT_PLAIN
    total = get16be(quoted + 2)
    if total < header + 8 or not icmp_to_6_c(message, total, mtu, &head):
        return VIA_OUT_REFUSED
    payload = total - header
    via_address_c(address, flow.site, key.host)
    if kind == PROTO_ICMP4:
        recast_echo_c(l4, rest, ECHO6, flow.port, 0,
                      pseudo_sum_c(6, <uint8_t*> flow.source, address, PROTO_ICMP6, payload))
        kind = PROTO_ICMP6
    else:
        before = sum_c(quoted + 12, 8, 0)
        after = sum_c(address, 16, sum_c(<uint8_t*> flow.source, 16, 0))
        retarget_c(l4, rest, kind, 0, flow.port, before, after, 0)
    # As much as an error may have (RFC 4443 2.4).
    rest = min(rest, IP6_MIN_MTU - <uint32_t> sizeof(heads))
    header6_c(heads + IP6_BYTES + ICMP_BYTES, quoted[1], payload, kind, quoted[8], <uint8_t*> flow.source, address)
    icmp_write_c(heads + IP6_BYTES, &head)
    # A router of the site has a via address, too; one elsewhere could not be its sender here.
    if via_routed_c(via, via_low_c(flow.site, sender)):
        via_address_c(address, flow.site, sender)
    elif get32be(via.own6):
        memcpy(address, via.own6, 16)
    header6_c(heads, packet[1], sizeof(heads) - IP6_BYTES + rest, PROTO_ICMP6, packet[8], address,
              <uint8_t*> flow.source)
    out.packet = l4 - sizeof(heads)
    out.bytes = sizeof(heads) + rest
    memset(&out.vnet, 0, VNET_BYTES)
    memcpy(out.packet, heads, sizeof(heads))
    message = out.packet + IP6_BYTES
    before = pseudo_sum_c(6, out.packet + 8, out.packet + 24, PROTO_ICMP6, out.bytes - IP6_BYTES)
    put16raw(message + 2, <uint16_t> ~fold_c(sum_c(message, out.bytes - IP6_BYTES, before)))
    return VIA_OUT_WHOLE


cdef inline bint _plan_parts(uint16_t fragment, uint32_t payload, uint32_t mtu, via_out_t* out) noexcept nogil:
    """How the packet is divided; 0 when its own fragment header makes no sense."""
    out.offset = (fragment & OFFSET_MASK) * 8
    out.more = (fragment & MORE_FRAGMENTS) != 0
    out.part = (mtu - IP6_BYTES - FRAGMENT_BYTES) & ~<uint32_t> 7
    out.parts = (payload + out.part - 1) // out.part
    if payload == 0 or out.more and payload & 7:
        return False
    return out.offset + payload <= 65535


cdef via_out_result_t via_out_c(const via_t* via, const vnet_header_t* vnet, uint8_t* packet,
                                const packet_info_t* info, uint32_t mtu, uint32_t tick,
                                via_out_t* out) noexcept nogil:
    cdef uint8_t address[16]
    cdef uint8_t* l4 = packet + info.l4_offset
    cdef uint32_t n = info.total_bytes - info.l4_offset
    cdef uint16_t fragment = get16be(packet + 6)
    cdef bint super_, partial, divided, parted = (fragment & (MORE_FRAGMENTS | OFFSET_MASK)) != 0
    cdef uint64_t before, after
    cdef uint8_t proto = packet[9], tos = packet[1], ttl = packet[8]
    cdef uint16_t check
    cdef via_key_t key
    cdef via_flow_t flow
    if info.proto == PROTO_ICMP4 and _is_error(info):
        return _error(via, packet, info, mtu, tick, out)
    if not _answers(via, packet, info, &key, &flow, tick):
        return VIA_OUT_PLAIN
    if not _offload(vnet, packet, info, mtu, out) or _source_routed(packet, info.l4_offset):
        return VIA_OUT_REFUSED
    super_ = out.vnet.gso_type != GSO_NONE
    if out.parts or super_ and n + IP6_BYTES > 65535:
        return VIA_OUT_CUT
    partial = (out.vnet.flags & VNET_NEEDS_CSUM) != 0
    if super_:
        divided = False
    elif n + IP6_BYTES + (FRAGMENT_BYTES if parted else 0) > mtu:
        if fragment & DONT_FRAGMENT:
            return VIA_OUT_TOO_BIG
        divided = True
    else:
        divided = parted
    if divided and not _plan_parts(fragment, n, mtu, out):
        return VIA_OUT_REFUSED
    if parted and (info.proto == PROTO_ICMP4 or proto == PROTO_ICMP4 or (
            info.proto == PROTO_UDP and get16raw(l4 + 6) == 0)):
        return VIA_OUT_REFUSED      # the sum of the whole would be needed, and it is not here
    via_address_c(address, flow.site, key.host)
    out.ident = get16be(packet + 4)
    if info.proto == PROTO_ICMP4:
        recast_echo_c(l4, n, ECHO_REPLY6, flow.port, 0,
                      pseudo_sum_c(6, address, <uint8_t*> flow.source, PROTO_ICMP6, n))
        proto = PROTO_ICMP6
    elif info.proto != PROTO_FRAGMENT:
        before = sum_c(info.src, 8, 0)
        after = sum_c(<uint8_t*> flow.source, 16, sum_c(address, 16, 0))
        if info.proto == PROTO_UDP and not partial and not super_ and get16raw(l4 + 6) == 0:
            put16be(l4 + 2, flow.port)
            check = <uint16_t> ~fold_c(sum_c(l4, n, pseudo_sum_c(6, address, <uint8_t*> flow.source, PROTO_UDP, n)))
            put16raw(l4 + 6, check if check else 0xFFFF)
        else:
            retarget_c(l4, n, info.proto, 2, flow.port, before, after, partial)
        if info.tcp_flags & TCP_SYN and not super_:
            clamp_mss_c(l4, n, <uint16_t> (mtu - TCP_HEADERS6), partial)
        if parted:
            # The first fragment has the ports; the others are known by what they have in common with it.
            key.proto += VIA_FRAGMENT
            key.port = out.ident
            key.host_port = 0
            viaflow_parts_c(via.flows, &key, &flow, tick)
    if divided and partial:
        _finish_sum(l4, n, info.proto)
        memset(&out.vnet, 0, VNET_BYTES)
    out.packet = l4 - IP6_BYTES
    out.bytes = n + IP6_BYTES
    header6_c(out.packet, tos, n, proto, ttl, address, <uint8_t*> flow.source)
    return VIA_OUT_PARTS if divided else VIA_OUT_WHOLE


cdef uint32_t via_part_c(const via_out_t* out, uint32_t i, uint8_t* at) noexcept nogil:
    cdef uint32_t from_ = i * out.part
    cdef uint32_t n = min(out.part, out.bytes - IP6_BYTES - from_)
    cdef uint16_t more = out.more if i + 1 == out.parts else 1
    memcpy(at, out.packet, IP6_BYTES)
    put16be(at + 4, <uint16_t> (n + FRAGMENT_BYTES))
    at[6] = NEXT_FRAGMENT
    at[IP6_BYTES] = out.packet[6]
    at[IP6_BYTES + 1] = 0
    put16be(at + IP6_BYTES + 2, <uint16_t> (out.offset + from_ | more))
    put32be(at + IP6_BYTES + 4, out.ident)
    memcpy(at + IP6_BYTES + FRAGMENT_BYTES, out.packet + IP6_BYTES + from_, n)
    return n + IP6_BYTES + FRAGMENT_BYTES


cdef uint32_t via_too_big_c(const uint8_t* packet, const packet_info_t* info, uint32_t mtu,
                            uint8_t* at) noexcept nogil:
    cdef uint32_t quoted = min(info.l4_offset + <uint32_t> 8, info.total_bytes)
    cdef uint8_t* message = at + IP4_BYTES
    cdef icmp_head_t head
    head.type = UNREACHABLE4
    head.code = NEEDS_DIVISION
    head.rest = mtu - (IP6_BYTES - IP4_BYTES)
    icmp_write_c(message, &head)
    memcpy(message + ICMP_BYTES, packet, quoted)
    put16raw(message + 2, <uint16_t> ~fold_c(sum_c(message, quoted + ICMP_BYTES, 0)))
    # From the address that the packet was for: this node's own may mean nothing on the way to the sender.
    header4_c(at, 0xc0, quoted + ICMP_BYTES + IP4_BYTES, 0, 0, TTL, PROTO_ICMP4, info.dst, info.src)
    return quoted + ICMP_BYTES + IP4_BYTES
