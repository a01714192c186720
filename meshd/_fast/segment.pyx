"""Split of virtio-net super packets; the contract is in segment.pyi, the C API in segment.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from meshd._fast.netbytes cimport get16be, get16raw, get32be, put16be, put16raw, put32be, raw16
from meshd._fast.packet cimport fold_c, sum_c

cdef enum:
    FIN_PSH = 0x09
    CWR = 0x80
    PROTO_TCP = 6
    PROTO_UDP = 17


cdef inline int _plan_whole(segment_plan_t* plan, const vnet_header_t* vnet) noexcept nogil:
    plan.kind = GSO_NONE
    plan.count = 1
    plan.piece = plan.bytes
    if vnet.flags & VNET_NEEDS_CSUM:
        if <uint32_t> vnet.csum_start + vnet.csum_offset + 2 > plan.bytes:
            return SEGMENT_BAD
        plan.checksum = 1
        plan.ip = vnet.csum_start
        plan.csum_at = vnet.csum_start + vnet.csum_offset
    return SEGMENT_OK


cdef inline int _plan_sizes(segment_plan_t* plan, const vnet_header_t* vnet) noexcept nogil:
    cdef uint32_t transport
    plan.ip = vnet.csum_start
    if plan.version == 4:
        if plan.kind == GSO_TCP6 or plan.ip < 20 or plan.ip != <uint32_t> (plan.packet[0] & 15) * 4:
            return SEGMENT_BAD
    elif plan.version != 6 or plan.kind == GSO_TCP4 or plan.ip < 40:
        return SEGMENT_BAD
    if plan.kind == GSO_UDP:
        transport = 8
    elif plan.kind == GSO_TCP4 or plan.kind == GSO_TCP6:
        if plan.ip + 20 > plan.bytes:
            return SEGMENT_BAD
        # The kernel's hdr_len may cover the whole first packet on the forward path.
        transport = (plan.packet[plan.ip + 12] >> 4) * 4
        if transport < 20:
            return SEGMENT_BAD
    else:
        return SEGMENT_BAD
    plan.header = plan.ip + transport
    plan.piece = vnet.gso_size
    if plan.piece == 0 or plan.header >= plan.bytes or plan.header + plan.piece > 65535:
        return SEGMENT_BAD
    plan.count = (plan.bytes - plan.header + plan.piece - 1) // plan.piece
    return SEGMENT_OK if plan.count <= MAX_PIECES else SEGMENT_BAD


cdef inline void _plan_sums(segment_plan_t* plan) noexcept nogil:
    cdef uint8_t head[120]
    cdef uint8_t* transport
    cdef uint64_t pseudo
    memcpy(head, plan.packet, plan.header)
    if plan.version == 4:
        plan.ident = get16be(head + 4)
        pseudo = sum_c(head + 12, 8, 0)
        head[2] = head[3] = head[4] = head[5] = head[10] = head[11] = 0
        plan.ip_sum = fold_c(sum_c(head, plan.ip, 0))
    else:
        pseudo = sum_c(head + 8, 32, 0)
    pseudo = fold_c(pseudo)
    transport = head + plan.ip
    if plan.kind == GSO_UDP:
        pseudo += raw16(PROTO_UDP)
        transport[4] = transport[5] = transport[6] = transport[7] = 0
    else:
        pseudo += raw16(PROTO_TCP)
        plan.sequence = get32be(transport + 4)
        plan.flags = transport[13]
        memset(transport + 4, 0, 4)
        transport[12] = transport[13] = transport[16] = transport[17] = 0
    plan.transport_sum = fold_c(sum_c(transport, plan.header - plan.ip, pseudo))


cdef int plan_c(segment_plan_t* plan, const vnet_header_t* vnet, const uint8_t* packet, size_t n) noexcept nogil:
    """Work out how to cut packet; it must stay in place until the last emit_c."""
    memset(plan, 0, sizeof(segment_plan_t))
    if n < 20 or n > 65535:
        return SEGMENT_BAD
    plan.packet = packet
    plan.bytes = <uint32_t> n
    plan.version = packet[0] >> 4
    plan.kind = vnet.gso_type & ~GSO_ECN
    if plan.kind == GSO_NONE:
        return _plan_whole(plan, vnet)
    # An IPv4 header of 60 bytes or an IPv6 one with extensions may exceed the scratch header.
    if _plan_sizes(plan, vnet) != SEGMENT_OK or plan.header > 120:
        return SEGMENT_BAD
    _plan_sums(plan)
    return SEGMENT_OK


cdef uint32_t piece_bytes_c(const segment_plan_t* plan, uint32_t i) noexcept nogil:
    """Bytes of the i-th packet."""
    if plan.kind == GSO_NONE:
        return plan.bytes
    if i + 1 < plan.count:
        return plan.header + plan.piece
    return plan.bytes - i * plan.piece


cdef uint32_t emit_c(const segment_plan_t* plan, uint32_t i, uint8_t* out) noexcept nogil:
    """Write the i-th packet to out and return its length, piece_bytes_c(plan, i)."""
    cdef uint32_t offset, payload, total
    cdef uint8_t* transport
    cdef uint64_t partial
    cdef uint16_t value
    if plan.kind == GSO_NONE:
        memcpy(out, plan.packet, plan.bytes)
        if plan.checksum:
            # The field holds the pseudo-header sum, so summing over it is all that is missing.
            value = <uint16_t> ~fold_c(sum_c(out + plan.ip, plan.bytes - plan.ip, 0))
            put16raw(out + plan.csum_at, value if value else 0xFFFF)
        return plan.bytes
    offset = plan.header + i * plan.piece
    payload = plan.piece if i + 1 < plan.count else plan.bytes - offset
    total = plan.header + payload
    memcpy(out, plan.packet, plan.header)
    memcpy(out + plan.header, plan.packet + offset, payload)
    if plan.version == 4:
        put16be(out + 2, <uint16_t> total)
        value = <uint16_t> (plan.ident + i)
        put16be(out + 4, value)
        put16raw(out + 10, <uint16_t> ~fold_c(plan.ip_sum + raw16(<uint16_t> total) + raw16(value)))
    else:
        put16be(out + 4, <uint16_t> (total - 40))
    transport = out + plan.ip
    value = <uint16_t> (total - plan.ip)
    partial = plan.transport_sum + raw16(value)
    if plan.kind == GSO_UDP:
        put16be(transport + 4, value)
        partial += raw16(value)
    else:
        put32be(transport + 4, plan.sequence + i * plan.piece)
        transport[13] = plan.flags
        if i + 1 < plan.count:
            transport[13] &= ~FIN_PSH
        if i:
            transport[13] &= ~CWR
        partial += <uint64_t> get16raw(transport + 4) + get16raw(transport + 6) + get16raw(transport + 12)
    value = <uint16_t> ~fold_c(sum_c(out + plan.header, payload, partial))
    put16raw(transport + (6 if plan.kind == GSO_UDP else 16), value if value else 0xFFFF)
    return total


cdef uint32_t padded_c(uint32_t n, uint32_t mtu) noexcept nogil:
    """Plaintext bytes of an n-byte packet: padded to 16, but not beyond the MTU of the tunnel."""
    cdef uint32_t last = n
    cdef uint32_t up
    if mtu and last > mtu:
        last = last % mtu
    up = (last + 15) & ~<uint32_t> 15
    if mtu and up > mtu:
        up = mtu
    return n + up - last


def split(const uint8_t[::1] vnet_header not None, const uint8_t[::1] packet not None) -> list:
    """Cut one packet as read from the TUN."""
    cdef segment_plan_t plan
    cdef vnet_header_t header
    cdef uint8_t room[65536]
    cdef uint32_t i
    cdef list pieces = []
    if vnet_header.shape[0] != VNET_BYTES:
        raise ValueError("a virtio-net header has 10 bytes")
    if packet.shape[0] == 0:
        raise ValueError("empty packet")
    memcpy(&header, &vnet_header[0], VNET_BYTES)
    if plan_c(&plan, &header, &packet[0], packet.shape[0]) != SEGMENT_OK:
        raise ValueError("offload header does not fit the packet")
    for i in range(plan.count):
        pieces.append((<char*> room)[:emit_c(&plan, i, room)])
    return pieces


def padded(uint32_t length, uint32_t mtu=0) -> int:
    """Plaintext length of a packet inside a transport message."""
    return padded_c(length, mtu)
