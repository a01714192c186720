"""From via addresses to IPv4 hosts; the contract is in viain.pxd."""
# freethreading: what it shares is in viaflow.pxd.

from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy

from meshd._fast.lpm cimport lpm_lookup_c
from meshd._fast.netbytes cimport get16be, get16raw, get32be, put16raw
from meshd._fast.packet cimport (
    PROTO_FRAGMENT,
    PROTO_ICMP4,
    PROTO_ICMP6,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UNKNOWN,
    TCP_SYN,
    fold_c,
    pseudo_sum_c,
    sum_c,
)
from meshd._fast.translate cimport (
    DONT_FRAGMENT,
    FRAGMENT_BYTES,
    ICMP_BYTES,
    IP4_BYTES,
    IP6_BYTES,
    IP6_MIN_MTU,
    MORE_FRAGMENTS,
    NEXT_FRAGMENT,
    clamp_mss_c,
    header4_c,
    icmp_head_t,
    icmp_to_4_c,
    icmp_write_c,
    recast_echo_c,
    retarget_c,
)
from meshd._fast.viaflow cimport (
    VIA_CLAIM_EVICTED,
    VIA_CLAIM_NONE,
    via_claim_t,
    via_flow_t,
    via_key_t,
    viaflow_claim_c,
    viaflow_known_c,
    viaflow_taken_c,
)
from meshd._fast.viaroutes cimport load_be64, via_here_c, via_routed_c

cdef enum:
    ECHO4 = 8
    ECHO_REPLY4 = 0
    ECHO6 = 128
    ECHO_REPLY6 = 129
    TCP_HEADERS6 = 60               # of a segment without options
    METADATA_SERVICE = 0xa9fea9fe   # 169.254.169.254, which the packet filter lets pass, too
    MESH_RANGE = 0x191              # the first 10 bits of 100.64.0.0/10

cdef struct parts_t:                # what the IPv4 header says of fragments
    uint16_t ident
    uint16_t field
    uint8_t proto
    uint8_t any


cdef inline bint _barred(const via_t* via, uint32_t host, const uint8_t* address) noexcept nogil:
    """Whether plain packets could not go there, or it is a node: those have addresses of their own."""
    cdef uint32_t top = host >> 24
    if top == 0 or top == 127 or top >= 224:
        return True
    if host >> 16 == 0xa9fe:
        return host != METADATA_SERVICE
    if host >> 22 == MESH_RANGE:
        return host == via.own4 or (via.peers != NULL and lpm_lookup_c(via.peers, address, 4) >= 0)
    return False


cdef inline void _parts(const uint8_t* packet, uint32_t total, uint16_t ident, parts_t* parts) noexcept nogil:
    """From the fragment header, when there is one; one that divides nothing (RFC 6946) is dropped."""
    cdef uint16_t value
    parts.proto = packet[6]
    parts.ident = ident
    # A packet that may become larger than this on the way back must not be divided by routers (RFC 7915 5.1).
    parts.field = 0 if total <= IP6_MIN_MTU - IP4_BYTES else DONT_FRAGMENT
    parts.any = 0
    if packet[6] == NEXT_FRAGMENT:
        value = get16be(packet + IP6_BYTES + 2)
        parts.proto = packet[IP6_BYTES]
        if value & 0xfff9:
            parts.ident = get16be(packet + IP6_BYTES + 6)
            parts.field = (value >> 3) | (MORE_FRAGMENTS if value & 1 else 0)
            parts.any = 1


cdef via_in_result_t _transport(const via_t* via, uint8_t* l4, uint32_t n, const packet_info_t* info, via_key_t* key,
                                const via_flow_t* flow, int32_t peer, uint32_t source, uint32_t mtu,
                                uint32_t tick, via_in_t* out) noexcept nogil:
    cdef via_claim_t claim = viaflow_claim_c(via.flows, key, flow, peer, info.tcp_flags, tick)
    cdef uint64_t before, after
    if claim == VIA_CLAIM_NONE:
        return VIA_IN_NO_PORT
    out.evicted = claim == VIA_CLAIM_EVICTED
    if info.proto == PROTO_ICMP6:
        recast_echo_c(l4, n, ECHO4, key.port, pseudo_sum_c(6, info.src, info.dst, PROTO_ICMP6, n), 0)
        return VIA_IN_DONE
    before = sum_c(info.src, 32, 0)
    after = sum_c(info.dst + 12, 4, sum_c(<const uint8_t*> &source, 4, 0))
    retarget_c(l4, n, info.proto, 0, key.port, before, after, 0)
    if info.tcp_flags & TCP_SYN:
        clamp_mss_c(l4, n, <uint16_t> (mtu - TCP_HEADERS6), 0)
    return VIA_IN_DONE


cdef via_in_result_t _error(const via_t* via, uint8_t* packet, const packet_info_t* info, uint32_t source,
                            uint32_t mtu, uint16_t ident, uint32_t tick, via_in_t* out) noexcept nogil:
    """An ICMP error about an answer that we translated. What it quotes is translated, too."""
    cdef uint8_t heads[2 * IP4_BYTES + ICMP_BYTES]
    cdef uint8_t* message = packet + info.l4_offset
    cdef uint8_t* quoted = message + ICMP_BYTES     # from the via address to the peer
    cdef uint8_t* l4 = quoted + IP6_BYTES
    cdef uint32_t rest = info.total_bytes - info.l4_offset, payload, total
    cdef uint64_t before, after
    cdef parts_t parts
    cdef icmp_head_t head
    cdef via_key_t key
    cdef via_flow_t flow
    if rest < ICMP_BYTES + IP6_BYTES + 8 or quoted[0] >> 4 != 6 or not icmp_to_4_c(message, mtu - IP4_BYTES, &head):
        return VIA_IN_REFUSED
    if memcmp(quoted + 8, info.dst, 16) != 0:
        return VIA_IN_REFUSED
    rest -= ICMP_BYTES + IP6_BYTES
    payload = get16be(quoted + 4)
    if quoted[6] == NEXT_FRAGMENT:
        if rest < FRAGMENT_BYTES + 8 or payload < FRAGMENT_BYTES or get16be(l4 + 2) & 0xfff8:
            return VIA_IN_NO_FLOW
    total = payload + IP4_BYTES
    _parts(quoted, total, ident, &parts)
    if quoted[6] == NEXT_FRAGMENT:
        l4 += FRAGMENT_BYTES
        rest -= FRAGMENT_BYTES
        payload -= FRAGMENT_BYTES
        total -= FRAGMENT_BYTES
    memcpy(flow.source, quoted + 24, 16)
    flow.site = get32be(info.dst + 8)
    key.host = get32be(info.dst + 12)
    key.peer = get32be(<const uint8_t*> &source)
    key.proto = parts.proto
    if parts.proto == PROTO_TCP or parts.proto == PROTO_UDP:
        key.host_port = get16be(l4)
        key.port = get16be(l4 + 2)
    elif parts.proto == PROTO_ICMP6 and l4[0] == ECHO_REPLY6 and not parts.any:
        key.proto = parts.proto = PROTO_ICMP4
        key.host_port = 0
        key.port = get16be(l4 + 4)
    else:
        return VIA_IN_NO_FLOW
    flow.port = key.port
    if not viaflow_known_c(via.flows, &key, &flow, tick):
        return VIA_IN_NO_FLOW
    if parts.proto == PROTO_ICMP4:
        recast_echo_c(l4, rest, ECHO_REPLY4, key.port, pseudo_sum_c(6, quoted + 8, quoted + 24, PROTO_ICMP6, payload),
                      0)
    else:
        before = sum_c(quoted + 8, 32, 0)
        after = sum_c(info.dst + 12, 4, sum_c(<const uint8_t*> &source, 4, 0))
        retarget_c(l4, rest, parts.proto, 2, key.port, before, after, 0)
    header4_c(heads, <uint8_t> (packet[0] << 4 | packet[1] >> 4), sizeof(heads) + rest, ident, 0, packet[7],
              PROTO_ICMP4, <const uint8_t*> &source, info.dst + 12)
    header4_c(heads + IP4_BYTES + ICMP_BYTES, <uint8_t> (quoted[0] << 4 | quoted[1] >> 4), total, parts.ident,
              parts.field, quoted[7], parts.proto, info.dst + 12, <const uint8_t*> &source)
    icmp_write_c(heads + IP4_BYTES, &head)
    out.packet = l4 - sizeof(heads)
    out.bytes = sizeof(heads) + rest
    memcpy(out.packet, heads, sizeof(heads))
    message = out.packet + IP4_BYTES
    put16raw(message + 2, <uint16_t> ~fold_c(sum_c(message, out.bytes - IP4_BYTES, 0)))
    return VIA_IN_DONE


cdef via_in_result_t via_in_c(const via_t* via, uint8_t* packet, const packet_info_t* info, uint32_t source,
                              int32_t peer, uint32_t mtu, uint16_t ident, uint32_t tick,
                              via_in_t* out) noexcept nogil:
    cdef uint64_t low = load_be64(info.dst + 8)
    cdef uint8_t host[4]
    cdef uint32_t n = info.total_bytes - info.l4_offset
    cdef uint8_t* l4 = packet + info.l4_offset
    cdef via_in_result_t result = VIA_IN_DONE
    cdef parts_t parts
    cdef via_key_t key
    cdef via_flow_t flow
    out.evicted = 0
    if not via_here_c(info.dst) or not via_routed_c(via, low):
        return VIA_IN_OTHER
    if source == 0:
        return VIA_IN_NO_IPV4
    # Unknown is also what has a fragment header that is cut off.
    if info.proto == PROTO_UNKNOWN or _barred(via, <uint32_t> low, info.dst + 12) or n + IP4_BYTES > 65535:
        return VIA_IN_REFUSED
    if info.proto == PROTO_ICMP6 and 1 <= info.icmp_type <= 4 and packet[6] == PROTO_ICMP6:
        return _error(via, packet, info, source, mtu, ident, tick, out)
    _parts(packet, n + IP4_BYTES, ident, &parts)
    memcpy(flow.source, info.src, 16)
    flow.site = <uint32_t> (low >> 32)
    key.host = <uint32_t> low
    key.peer = get32be(<const uint8_t*> &source)
    key.proto = info.proto
    key.host_port = info.dst_port
    key.port = info.src_port
    if info.proto == PROTO_TCP or info.proto == PROTO_UDP:
        # Over IPv6 a datagram without checksum is none (RFC 8200 8.1).
        if info.proto == PROTO_UDP and get16raw(l4 + 6) == 0:
            return VIA_IN_REFUSED
    elif info.proto == PROTO_ICMP6:
        if info.icmp_type == ECHO_REPLY6:
            return VIA_IN_NO_FLOW
        # The length of the whole is in the sum, and a fragment does not have it.
        if info.icmp_type != ECHO6 or parts.any or n < ICMP_BYTES:
            return VIA_IN_REFUSED
        key.proto = parts.proto = PROTO_ICMP4
        key.host_port = 0
        key.port = info.icmp_id
    elif info.proto != PROTO_FRAGMENT or (parts.proto != PROTO_TCP and parts.proto != PROTO_UDP):
        return VIA_IN_REFUSED
    if info.proto != PROTO_FRAGMENT:
        flow.port = key.port
        result = _transport(via, l4, n, info, &key, &flow, peer, source, mtu, tick, out)
        if result != VIA_IN_DONE:
            return result
    memcpy(host, info.dst + 12, 4)      # the new header lies over the old address
    out.packet = l4 - IP4_BYTES
    out.bytes = n + IP4_BYTES
    header4_c(out.packet, <uint8_t> (packet[0] << 4 | packet[1] >> 4), out.bytes, parts.ident, parts.field, packet[7],
              parts.proto, <const uint8_t*> &source, host)
    return VIA_IN_DONE


cdef bint via_clash_c(const via_t* via, const packet_info_t* info, uint32_t tick) noexcept nogil:
    cdef via_key_t key
    key.host = get32be(info.dst)
    key.peer = get32be(info.src)
    key.proto = info.proto
    key.host_port = info.dst_port
    key.port = info.src_port
    if info.proto == PROTO_ICMP4 and info.icmp_type == ECHO4:
        key.host_port = 0
        key.port = info.icmp_id
    elif info.proto != PROTO_TCP and info.proto != PROTO_UDP:
        return False
    return viaflow_taken_c(via.flows, &key, tick)
