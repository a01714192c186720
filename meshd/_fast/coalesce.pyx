"""GRO of packets on their way to the TUN; the contract is in coalesce.pyi, the C API in coalesce.pxd.

Payload is never moved: an item lists where its pieces lie, and the TUN takes them by one writev.
"""

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset

from meshd._fast.netbytes cimport get16be, get32be, get32le, put16be, put16raw, raw16
from meshd._fast.packet cimport fold_c, sum_c
from meshd._fast.segment cimport GSO_TCP4, GSO_TCP6, GSO_UDP, VNET_BYTES, VNET_NEEDS_CSUM, vnet_header_t

cdef enum:
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_ICMP6 = 58
    ACK = 0x10
    PSH = 0x08


cdef gro_t* gro_new_c() noexcept nogil:
    cdef gro_t* gro = <gro_t*> calloc(1, sizeof(gro_t))
    if gro == NULL:
        return NULL
    # Large enough for the allocator to map it: unused items cost no memory.
    gro.items = <gro_item_t*> calloc(GRO_ITEMS, sizeof(gro_item_t))
    if gro.items == NULL:
        free(gro)
        return NULL
    gro.features = GRO_TCP | GRO_UDP
    memset(gro.newest, 0xFF, sizeof(gro.newest))
    return gro


cdef void gro_free_c(gro_t* gro) noexcept nogil:
    if gro != NULL:
        free(gro.items)
        free(gro)


cdef void gro_reset_c(gro_t* gro) noexcept nogil:
    """Forget all items, after they were written."""
    cdef uint32_t i
    for i in range(gro.count):
        if gro.items[i].kind:
            gro.newest[gro.items[i].bucket] = -1
    gro.count = 0
    gro.datagrams = 0


cdef inline int _classify(gro_item_t* item, uint32_t features) noexcept nogil:
    """Fill the header sizes and the kind of item; kind 0 when the packet must be left alone.

    A datagram that must be left alone has a kind, too, and is broken: its flow goes on behind it.
    """
    cdef const uint8_t* p = item.packet
    cdef uint32_t n = item.bytes
    cdef uint8_t protocol, tcp
    item.kind = 0
    if n < 28:
        return 0
    item.version = p[0] >> 4
    if item.version == 4:
        # No options, no fragment.
        if p[0] != 0x45 or get16be(p + 2) != n or (get16be(p + 6) & 0x3FFF):
            return 0
        item.ip = 20
        protocol = p[9]
    elif item.version == 6:
        if n < 48 or <uint32_t> get16be(p + 4) + 40 != n:
            return 0
        item.ip = 40
        protocol = p[6]
    else:
        return 0
    if protocol == PROTO_TCP and features & GRO_TCP:
        if n < <uint32_t> item.ip + 20:
            return 0
        tcp = (p[item.ip + 12] >> 4) * 4
        item.header = item.ip + tcp
        if tcp < 20 or item.header >= n or (p[item.ip + 13] & ~PSH) != ACK or p[item.ip + 12] & 15:
            return 0
        item.sequence = get32be(p + item.ip + 4)
        item.push = p[item.ip + 13] & PSH
        item.kind = GRO_TCP
    elif protocol == PROTO_UDP and features & GRO_UDP:
        item.header = item.ip + 8
        # Without a checksum nothing can be verified, and a merged packet would gain one.
        item.broken = item.header >= n or <uint32_t> get16be(p + item.ip + 4) + item.ip != n or (
            p[item.ip + 6] | p[item.ip + 7]) == 0
        item.push = 0
        item.kind = GRO_UDP
    item.payload = n - item.header
    item.gso = <uint16_t> item.payload
    return item.kind


cdef inline bint _hides_datagram(const uint8_t* p, uint32_t n) noexcept nogil:
    """Whether a packet without a kind may be of a UDP flow: a fragment, or with options or extension headers."""
    if p[0] >> 4 == 4:
        return n >= 20 and p[9] == PROTO_UDP
    return p[0] >> 4 == 6 and n >= 40 and p[6] != PROTO_TCP and p[6] != PROTO_ICMP6


cdef inline uint16_t _bucket(const gro_item_t* item) noexcept nogil:
    cdef const uint8_t* p = item.packet
    cdef uint32_t h = get32le(p + item.ip) ^ get32le(p + item.ip - 4) ^ (get32le(p + item.ip - 20 + 12) * 3)
    if item.kind == GRO_TCP:
        h ^= get32le(p + item.ip + 8) * 5
    h = <uint32_t> (h * <uint32_t> 0x9E3779B1)
    return <uint16_t> (h >> 24)


cdef inline bint _same_flow(const gro_item_t* a, const gro_item_t* b) noexcept nogil:
    """Addresses, ports and, for TCP, the acknowledgement number."""
    cdef uint32_t addresses = 8 if a.version == 4 else 32
    if a.kind != b.kind or a.version != b.version:
        return False
    if memcmp(a.packet + a.ip - addresses, b.packet + b.ip - addresses, addresses + 4) != 0:
        return False
    return a.kind == GRO_UDP or memcmp(a.packet + a.ip + 8, b.packet + b.ip + 8, 4) == 0


cdef inline bint _same_headers(const gro_item_t* a, const gro_item_t* b) noexcept nogil:
    """What a merged packet cannot carry twice: class, hop limit, DF, TCP window and options."""
    cdef const uint8_t* p = a.packet
    cdef const uint8_t* q = b.packet
    if a.header != b.header:
        return False
    if a.version == 4:
        if p[1] != q[1] or p[8] != q[8] or (p[6] ^ q[6]) & 0xE0:
            return False
    elif p[7] != q[7] or memcmp(p, q, 4) != 0:
        return False
    if a.kind == GRO_UDP:
        return True
    # The newest window must not be lost: a sender that waits for it would wait on.
    return memcmp(p + a.ip + 14, q + a.ip + 14, 2) == 0 and memcmp(
        p + a.ip + 20, q + a.ip + 20, a.header - a.ip - 20) == 0


cdef inline bint _checksum_good(const gro_item_t* item) noexcept nogil:
    cdef uint32_t addresses = 8 if item.version == 4 else 32
    cdef uint64_t partial = sum_c(item.packet + item.ip - addresses, addresses, 0)
    partial = <uint64_t> fold_c(partial) + raw16(<uint16_t> (item.bytes - item.ip))
    partial += raw16(PROTO_TCP if item.kind == GRO_TCP else PROTO_UDP)
    return fold_c(sum_c(item.packet + item.ip, item.bytes - item.ip, partial)) == 0xFFFF


cdef enum:
    NO_MATCH = 0
    APPEND = 1
    PREPEND = 2


cdef inline int _fit(const gro_item_t* item, const gro_item_t* new) noexcept nogil:
    """Whether and where new joins item, by size and sequence."""
    if item.pieces >= GRO_PIECES or item.header + item.payload + new.payload > 65535:
        return NO_MATCH
    if item.kind == GRO_UDP:
        return APPEND if item.payload % item.gso == 0 and new.payload <= item.gso else NO_MATCH
    if new.sequence == item.sequence + item.payload:
        if item.push or item.payload % item.gso or new.payload > item.gso:
            return NO_MATCH
        return APPEND
    if new.sequence + new.payload == item.sequence:
        if new.push or new.payload < item.gso or (new.payload > item.gso and item.pieces > 1):
            return NO_MATCH
        return PREPEND
    return NO_MATCH


cdef inline void _prepend(gro_item_t* item, const gro_item_t* new) noexcept nogil:
    memmove(&item.iov[2], &item.iov[1], item.pieces * sizeof(iovec))
    item.iov[1].iov_base = <void*> (new.packet + new.header)
    item.iov[1].iov_len = new.payload
    item.packet = new.packet
    item.bytes = new.bytes
    item.sequence = new.sequence
    item.gso = <uint16_t> new.payload


cdef inline void _append(gro_item_t* item, const gro_item_t* new) noexcept nogil:
    item.iov[1 + item.pieces].iov_base = <void*> (new.packet + new.header)
    item.iov[1 + item.pieces].iov_len = new.payload
    item.push |= new.push


cdef int _merge(gro_t* gro, const gro_item_t* new) noexcept nogil:
    """1 when an older item of the flow took the packet."""
    cdef int16_t at = gro.newest[new.bucket]
    cdef gro_item_t* item
    cdef bint hidden
    cdef int where
    if new.broken:
        return 0
    while at >= 0:
        item = &gro.items[at]
        hidden = <uint32_t> at < gro.datagrams
        at = item.older
        if not _same_flow(item, new):
            continue
        if item.kind == GRO_UDP and (hidden or item.broken):
            return 0            # what came between goes first
        where = _fit(item, new) if _same_headers(item, new) else NO_MATCH
        if where == NO_MATCH:
            if item.kind == GRO_UDP:
                return 0        # only the newest of a UDP flow: datagrams must not overtake
            continue
        if not item.checked and not item.broken:
            if not _checksum_good(item):
                item.broken = 1
            else:
                item.checked = 1
        if item.broken:
            # It goes on as it came; a datagram must not overtake it.
            if item.kind == GRO_UDP:
                return 0
            continue
        if not _checksum_good(new):
            return 0
        if where == APPEND:
            _append(item, new)
        else:
            _prepend(item, new)
        item.payload += new.payload
        item.pieces += 1
        return 1
    return 0


cdef int gro_add_c(gro_t* gro, const uint8_t* packet, uint32_t n) noexcept nogil:
    """Take one packet, which must stay in place until the items are written. 0 = batch full."""
    cdef gro_item_t* item
    if gro.count >= GRO_ITEMS:
        return 0
    item = &gro.items[gro.count]
    item.packet = packet
    item.bytes = n
    item.checked = 0
    item.broken = 0
    item.pieces = 1
    item.older = -1
    if _classify(item, gro.features):
        item.bucket = _bucket(item)
        if _merge(gro, item):
            return 1
        item.iov[1].iov_base = <void*> (packet + item.header)
        item.iov[1].iov_len = item.payload
        item.older = gro.newest[item.bucket]
        gro.newest[item.bucket] = <int16_t> gro.count
    elif _hides_datagram(packet, n):
        gro.datagrams = gro.count
    gro.count += 1
    return 1


cdef int gro_finish_c(gro_item_t* item) noexcept nogil:
    """Complete the headers of an item; returns how many entries of item.iov to write."""
    cdef vnet_header_t* vnet = <vnet_header_t*> item.head
    cdef uint8_t* head = item.head + VNET_BYTES
    cdef uint8_t* transport
    cdef uint32_t total, addresses
    cdef uint64_t pseudo
    memset(vnet, 0, VNET_BYTES)
    item.iov[0].iov_base = item.head
    item.iov[0].iov_len = VNET_BYTES
    if item.pieces == 1:
        item.iov[1].iov_base = <void*> item.packet
        item.iov[1].iov_len = item.bytes
        return 2
    total = item.header + item.payload
    memcpy(head, item.packet, item.header)
    item.iov[0].iov_len = VNET_BYTES + item.header
    vnet.flags = VNET_NEEDS_CSUM
    vnet.hdr_len = item.header
    vnet.gso_size = item.gso
    vnet.csum_start = item.ip
    transport = head + item.ip
    if item.version == 4:
        put16be(head + 2, <uint16_t> total)
        head[10] = head[11] = 0
        put16raw(head + 10, <uint16_t> ~fold_c(sum_c(head, 20, 0)))
        addresses = 8
    else:
        put16be(head + 4, <uint16_t> (total - 40))
        addresses = 32
    pseudo = fold_c(sum_c(transport - addresses, addresses, 0))
    pseudo += raw16(<uint16_t> (total - item.ip))
    if item.kind == GRO_TCP:
        vnet.gso_type = GSO_TCP4 if item.version == 4 else GSO_TCP6
        vnet.csum_offset = 16
        transport[13] |= item.push
        put16raw(transport + 16, fold_c(pseudo + raw16(PROTO_TCP)))
    else:
        vnet.gso_type = GSO_UDP
        vnet.csum_offset = 6
        put16be(transport + 4, <uint16_t> (total - item.ip))
        put16raw(transport + 6, fold_c(pseudo + raw16(PROTO_UDP)))
    return 1 + item.pieces


cdef const uint8_t* gro_piece_c(const gro_item_t* item, uint32_t i, uint32_t* n) noexcept nogil:
    """The i-th packet of an item as it came, for a TUN that refused the merged form."""
    cdef const uint8_t* start
    if item.pieces == 1:
        n[0] = item.bytes
        return item.packet
    # Every piece lies behind its own untouched headers, which are as long as the first one's.
    start = <const uint8_t*> item.iov[1 + i].iov_base - item.header
    n[0] = item.header + <uint32_t> item.iov[1 + i].iov_len
    return start


def coalesce(packets not None, *, bint tcp=True, bint udp=True) -> list:
    """One batch of IP packets as it would be written."""
    cdef gro_t* gro
    cdef list kept = [bytes(packet) for packet in packets]
    cdef list written = []
    cdef const uint8_t[::1] view
    cdef uint32_t i
    cdef int k, n
    if len(kept) > GRO_ITEMS:
        raise ValueError(f"a batch has at most {GRO_ITEMS} packets")
    gro = gro_new_c()
    if gro == NULL:
        raise MemoryError
    try:
        gro.features = (GRO_TCP if tcp else 0) | (GRO_UDP if udp else 0)
        for packet in kept:
            if not 1 <= len(packet) <= 65535:
                raise ValueError("packet length")
            view = packet
            gro_add_c(gro, &view[0], <uint32_t> len(packet))
        for i in range(gro.count):
            n = gro_finish_c(&gro.items[i])
            whole = b"".join([
                (<char*> gro.items[i].iov[k].iov_base)[:gro.items[i].iov[k].iov_len] for k in range(n)
            ])
            written.append((whole[:VNET_BYTES], whole[VNET_BYTES:]))
    finally:
        gro_free_c(gro)
    return written
