"""Inbound packet path; the contract is in inbound.pxd."""
# freethreading: a context belongs to one thread at a time.

from libc.errno cimport EINVAL
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from meshd._fast.aead cimport TRANSPORT_HEADER_BYTES, TRANSPORT_OVERHEAD_BYTES, default_backend_c, transport_parse_c
from meshd._fast.atomics cimport (
    fast_add64,
    fast_load32,
    fast_loadp,
    fast_lock,
    fast_peek32,
    fast_peek64,
    fast_set64,
    fast_unlock,
)
from meshd._fast.coalesce cimport (
    gro_add_c,
    gro_finish_c,
    gro_free_c,
    gro_item_t,
    gro_new_c,
    gro_piece_c,
    gro_reset_c,
    iovec,
)
from meshd._fast.filter cimport FILTER_ACCEPT, FILTER_DROP_RULES, filter_in_c
from meshd._fast.flow cimport flow_table_t
from meshd._fast.lpm cimport lpm_lookup_c
from meshd._fast.masquerade cimport masquerade_in_c, masquerade_t
from meshd._fast.netbytes cimport get32le
from meshd._fast.packet cimport (
    FAST_OK,
    PROTO_ICMP4,
    PROTO_ICMP6,
    PROTO_TCP,
    PROTO_TSMP,
    PROTO_UDP,
    TCP_ACK,
    TCP_SYN,
    packet_info_t,
    parse_c,
)
from meshd._fast.peer cimport path_t, peer_find_c, peer_get_path_c, peer_promote_c, peer_received_c
from meshd._fast.planestate cimport (
    EV_CONFIRMED,
    EV_DATAGRAM,
    EV_DENIED,
    EV_ECHO,
    EV_LOCAL,
    EV_ROAMED,
    EV_TSMP,
    IN_DERP_PACKETS,
    IN_DEVICE_ERROR,
    IN_EVENT_LIMIT,
    IN_EXPIRED,
    IN_FILTERED,
    IN_FORGED,
    IN_GRO_OFF,
    IN_IPV4_PACKETS,
    IN_IPV6_PACKETS,
    IN_MALFORMED,
    IN_NO_SESSION,
    IN_REPLAYED,
    IN_RUNT,
    IN_SOURCE,
    IN_SOURCE_LIMIT,
    IN_TRUNCATED,
    IN_UNKNOWN,
    IN_VIA_EVICTED,
    IN_VIA_NO_FLOW,
    IN_VIA_NO_IPV4,
    IN_VIA_NO_PORT,
    IN_VIA_REFUSED,
    TUN_WRITES,
    count_c,
    count_drop_c,
    count_traffic_c,
    drop_session_c,
    event_active_c,
    event_c,
    event_rekey_c,
    own_addresses_t,
)
from meshd._fast.ring cimport record_t, ring_put_c
from meshd._fast.ruleset cimport filter_t
from meshd._fast.segment cimport VNET_BYTES
from meshd._fast.session cimport (
    REJECT_AFTER_NS,
    REKEY_ON_RECEIVE_NS,
    SECOND,
    session_accept_c,
    session_find_c,
    session_table_t,
)
from meshd._fast.sourcelimit cimport (
    SOURCE_HANDSHAKE,
    SOURCE_OTHER,
    source_allow_c,
    source_limit_free_c,
    source_limit_new_c,
)
from meshd._fast.tunio cimport tun_write_c
from meshd._fast.translate cimport IP6_MIN_MTU
from meshd._fast.udpio cimport AF_INET, sockaddr, udp_address_bytes_c
from meshd._fast.viaflow cimport via_tick_c
from meshd._fast.viain cimport (
    VIA_IN_DONE,
    VIA_IN_NO_FLOW,
    VIA_IN_NO_IPV4,
    VIA_IN_NO_PORT,
    VIA_IN_OTHER,
    VIA_IN_REFUSED,
    via_clash_c,
    via_in_c,
    via_in_result_t,
    via_in_t,
)
from meshd._fast.viaroutes cimport via_t

cdef enum:
    DENIED_PER_SECOND = 10      # refused connections that are worth an answer
    TOLD_PER_SECOND = 256       # questions and answers of one peer for the loop, which takes some 25 000 of all
    RUNT = 32                   # shorter than any message of any protocol on this socket
    INITIATION_BYTES = 148
    RESPONSE_BYTES = 92
    COOKIE_BYTES = 64
    DISCO_BYTES = 78            # magic, sender, nonce, tag

cdef const uint8_t* DISCO_MAGIC = <const uint8_t*> b"TS\xf0\x9f\x92\xac"
cdef const uint8_t* MAPPED = <const uint8_t*> b"\0\0\0\0\0\0\0\0\0\0\xff\xff"
cdef const uint8_t* STUN_COOKIE = <const uint8_t*> b"\x21\x12\xa4\x42"


cdef int inbound_open_c(inbound_t* inb, plane_t* plane, uint32_t worker) noexcept nogil:
    """0 when memory is short."""
    memset(inb, 0, sizeof(inbound_t))
    inb.plane = plane
    inb.worker = worker
    inb.peer = -1
    inb.way = IN_DERP_PACKETS
    inb.ident = <uint16_t> (worker << 11)     # far from those of other threads
    inb.gro = gro_new_c()
    inb.sources = source_limit_new_c()
    if inb.gro == NULL or inb.sources == NULL:
        inbound_close_c(inb)
        return 0
    inb.gro.features = plane.gro_features if plane.vnet else 0
    inb.aead = default_backend_c()
    inb.aead_context = inb.aead.ctx_new()
    if inb.aead_context == NULL:
        inbound_close_c(inb)
        return 0
    return 1


cdef void inbound_close_c(inbound_t* inb) noexcept nogil:
    if inb.aead_context != NULL:
        inb.aead.ctx_free(inb.aead_context)
    gro_free_c(inb.gro)
    source_limit_free_c(inb.sources)
    inb.aead_context = NULL
    inb.gro = NULL
    inb.sources = NULL


# -- writing to the TUN


cdef inline uint32_t _flow_hash(const uint8_t* p, uint32_t n) noexcept nogil:
    """Of addresses and ports; of addresses alone for fragments and other protocols."""
    cdef uint32_t h = 0, i, ports = 40
    cdef uint8_t proto
    if p[0] >> 4 == 4:
        h = get32le(p + 12) * 3 ^ get32le(p + 16)
        ports = (p[0] & 15) * 4
        proto = 0 if (p[6] & 0x3f) | p[7] else p[9]
    elif n < 40:
        return 0
    else:
        proto = p[6]
        for i in range(8, 40, 4):
            h = h * 3 ^ get32le(p + i)
    if (proto == PROTO_TCP or proto == PROTO_UDP) and n >= ports + 4:
        h ^= get32le(p + ports) * 5
    h = (h ^ h >> 15) * <uint32_t> 0x9E3779B1
    return h ^ h >> 16


cdef inline int _queue_of(const plane_t* plane, const gro_item_t* item) noexcept nogil:
    """Flows stay on one queue, so that the kernel returns their answers on it, in their order."""
    if plane.tun_count == 1:
        return plane.tuns[0].fd
    return plane.tuns[_flow_hash(item.packet, item.bytes) % <uint32_t> plane.tun_count].fd


cdef void _write_apart(inbound_t* inb, int fd, const gro_item_t* item) noexcept nogil:
    """The pieces of an item one by one, because this kernel does not take them merged."""
    cdef uint8_t plain_header[VNET_BYTES]
    cdef iovec pieces[2]
    cdef uint32_t i, n = 0
    memset(plain_header, 0, VNET_BYTES)
    for i in range(item.pieces):
        pieces[0].iov_base = plain_header
        pieces[0].iov_len = VNET_BYTES
        pieces[1].iov_base = <void*> gro_piece_c(item, i, &n)
        pieces[1].iov_len = n
        if tun_write_c(fd, pieces, 2):
            count_c(inb.plane, inb.worker, IN_DEVICE_ERROR, 1)


cdef void _write_item(inbound_t* inb, gro_item_t* item) noexcept nogil:
    cdef plane_t* plane = inb.plane
    cdef int fd = _queue_of(plane, item)
    cdef int entries = gro_finish_c(item)
    cdef int failure
    count_c(plane, inb.worker, TUN_WRITES, 1)
    if not plane.vnet:
        failure = tun_write_c(fd, &item.iov[1], 1)
    else:
        failure = tun_write_c(fd, item.iov, entries)
    if failure == EINVAL and item.pieces > 1:
        inb.gro.features &= ~<uint32_t> item.kind
        count_c(plane, inb.worker, IN_GRO_OFF, 1)
        _write_apart(inb, fd, item)
    elif failure:
        count_c(plane, inb.worker, IN_DEVICE_ERROR, item.pieces)


cdef void _write_all(inbound_t* inb) noexcept nogil:
    cdef uint32_t i
    for i in range(inb.gro.count):
        _write_item(inb, &inb.gro.items[i])
    gro_reset_c(inb.gro)


cdef int inbound_deliver_c(inbound_t* inb, const uint8_t* packet, uint32_t n) noexcept nogil:
    """Queue one packet for the TUN; 0 when there is none."""
    if inb.plane.tun_count == 0:
        return 0
    if not gro_add_c(inb.gro, packet, n):
        _write_all(inb)
        gro_add_c(inb.gro, packet, n)
    return 1


# -- accounting


cdef inline void _settle(inbound_t* inb) noexcept nogil:
    """Book what was summed up for one peer."""
    if inb.peer >= 0:
        peer_received_c(inb.slot, inb.now, inb.packets, inb.bytes, inb.data != 0)
        event_active_c(inb.plane, inb.worker, inb.peer, inb.slot)
        count_traffic_c(inb.plane, inb.worker, inb.way, inb.packets, inb.bytes)
        inb.peer = -1


cdef inline void _comes_by(inbound_t* inb, uint32_t way) noexcept nogil:
    if inb.way != way:
        _settle(inb)
        inb.way = way


cdef inline void _account(inbound_t* inb, int32_t peer, peer_t* slot, uint32_t n, uint32_t data) noexcept nogil:
    if inb.peer != peer:
        _settle(inb)
        inb.peer = peer
        inb.slot = slot
        inb.packets = inb.bytes = inb.data = 0
    inb.packets += 1
    inb.bytes += n
    inb.data |= data


cdef void inbound_begin_c(inbound_t* inb) noexcept nogil:
    # A session found in an earlier batch may have been freed since.
    inb.session = NULL
    inb.gro.features &= fast_peek32(&inb.plane.gro_features)


cdef void inbound_flush_c(inbound_t* inb) noexcept nogil:
    _settle(inb)
    if inb.gro.count:
        _write_all(inb)


# -- opening


cdef inline bint _is_watched_echo(const plane_t* plane, const packet_info_t* info) noexcept nogil:
    if info.version == 4:
        if info.proto != PROTO_ICMP4 or info.icmp_type != 0:
            return False
    elif info.proto != PROTO_ICMP6 or info.icmp_type != 129:
        return False
    return (plane.echo[info.icmp_id >> 6] >> (info.icmp_id & 63)) & 1


cdef void _denied(inbound_t* inb, int32_t peer, const uint8_t* packet, uint32_t n) noexcept nogil:
    """Report a refused connection, but never so many that answering them costs more than the flood."""
    cdef plane_t* plane = inb.plane
    cdef bint report
    fast_lock(&plane.denied_lock)
    if inb.now - plane.denied_since >= SECOND:
        plane.denied_since = inb.now
        plane.denied = 0
    plane.denied += 1
    report = plane.denied <= DENIED_PER_SECOND
    fast_unlock(&plane.denied_lock)
    if report:
        event_c(plane, inb.worker, EV_DENIED, peer, 0, packet, n)


cdef inline bint _may_tell(inbound_t* inb, peer_t* slot) noexcept nogil:
    """Whether one more packet of the peer may cost the loop time in this second; a thread's slip does no harm."""
    if inb.now - fast_peek64(&slot.told_since) >= SECOND:
        fast_set64(&slot.told_since, inb.now)
        fast_set64(&slot.told, 0)
    return fast_add64(&slot.told, 1) < TOLD_PER_SECOND


cdef const uint8_t* _translated(inbound_t* inb, const via_t* via, int32_t peer, peer_t* slot, const uint8_t* packet,
                                const packet_info_t* info, uint32_t* n) noexcept nogil:
    """The packet as the host gets it on a node with via routes; NULL when it was dropped."""
    cdef uint32_t tick = via_tick_c(inb.now), why = IN_VIA_NO_PORT
    cdef via_in_result_t result = VIA_IN_OTHER
    cdef via_in_t out
    if info.version == 4:
        if via_clash_c(via, info, tick):
            result = VIA_IN_NO_PORT
    else:
        result = via_in_c(via, <uint8_t*> packet, info, fast_peek32(&slot.ipv4), peer,
                          max(inb.plane.mtu, <uint32_t> IP6_MIN_MTU), inb.ident, tick, &out)
    if result == VIA_IN_OTHER:
        return packet
    if result == VIA_IN_DONE:
        inb.ident += 1
        if out.evicted:
            count_c(inb.plane, inb.worker, IN_VIA_EVICTED, out.evicted)
        n[0] = out.bytes
        return out.packet
    if result == VIA_IN_NO_IPV4:
        why = IN_VIA_NO_IPV4
    elif result == VIA_IN_REFUSED:
        why = IN_VIA_REFUSED
    elif result == VIA_IN_NO_FLOW:
        why = IN_VIA_NO_FLOW
    count_drop_c(inb.plane, inb.worker, slot, why, 1)
    return NULL


cdef inline bint _strange(const plane_t* plane, const packet_info_t* info) noexcept nogil:
    """Whether the packet comes from where no peer is, though a default route leads there: see set_own_addresses."""
    cdef const own_addresses_t* own = <const own_addresses_t*> fast_loadp(&plane.own)
    cdef uint32_t i, n = 4 if info.version == 4 else 16
    if n == 16 and memcmp(info.src, MAPPED, 12) == 0:
        return True
    if own != NULL:
        for i in range(own.count):
            if own.addresses[i].bytes == n and memcmp(own.addresses[i].raw, info.src, n) == 0:
                return True
    return False


cdef void _plain(inbound_t* inb, int32_t peer, peer_t* slot, const uint8_t* packet, uint32_t padded) noexcept nogil:
    """An authenticated packet: source, filter, destination."""
    cdef plane_t* plane = inb.plane
    cdef packet_info_t info
    cdef const masquerade_t* masquerade = <const masquerade_t*> fast_loadp(&slot.masquerade)
    cdef const via_t* via
    cdef uint32_t n
    cdef bint jailed
    cdef int verdict
    if parse_c(packet, padded, &info) != FAST_OK:
        count_drop_c(plane, inb.worker, slot, IN_MALFORMED, 1)
        return
    if lpm_lookup_c(plane.routes, info.src, info.version) != peer or _strange(plane, &info):
        count_drop_c(plane, inb.worker, slot, IN_SOURCE, 1)
        return
    if masquerade != NULL:
        masquerade_in_c(masquerade, <uint8_t*> packet, &info)   # it was opened into a buffer of ours
    if info.proto == PROTO_TSMP:
        if _may_tell(inb, slot):
            event_c(plane, inb.worker, EV_TSMP, peer, 0, packet, info.total_bytes)
        else:
            count_drop_c(plane, inb.worker, slot, IN_EVENT_LIMIT, 1)
        return
    jailed = fast_load32(&slot.jailed) != 0
    verdict = filter_in_c(<const filter_t*> fast_loadp(&plane.shield if jailed else &plane.filter),
                          plane.shield_flows if jailed else <flow_table_t*> fast_loadp(<void**> &plane.flows), &info)
    if verdict != FILTER_ACCEPT:
        count_drop_c(plane, inb.worker, slot, IN_FILTERED, 1)
        if (verdict == FILTER_DROP_RULES and info.proto == PROTO_TCP
                and (info.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN):
            _denied(inb, peer, packet, info.total_bytes)
        return
    if _is_watched_echo(plane, &info) and _may_tell(inb, slot):
        event_c(plane, inb.worker, EV_ECHO, peer, 0, packet, info.total_bytes)
        return
    n = info.total_bytes
    via = <const via_t*> fast_loadp(&plane.via)
    if via != NULL:
        packet = _translated(inb, via, peer, slot, packet, &info, &n)
        if packet == NULL:
            return
    if not inbound_deliver_c(inb, packet, n):
        event_c(plane, inb.worker, EV_LOCAL, peer, 0, packet, n)


cdef void _promote(inbound_t* inb, peer_t* slot, session_t* session) noexcept nogil:
    cdef session_t* dropped[2]
    cdef int n = peer_promote_c(slot, session, dropped)
    if n < 0:
        return
    if n:
        drop_session_c(inb.plane, dropped[0])
    event_c(inb.plane, inb.worker, EV_CONFIRMED, session.peer, session.local_index, NULL, 0)


cdef void _source_c(record_t* record, const uint8_t* raw, uint32_t n, uint16_t port) noexcept nogil:
    record.port = port
    record.address_bytes = <uint8_t> n
    memcpy(record.address, raw, n)


cdef void _roamed(inbound_t* inb, int32_t peer, peer_t* slot) noexcept nogil:
    """Tell the loop when the peer is elsewhere than where we send to it."""
    cdef path_t path
    cdef record_t record
    cdef const uint8_t* raw = NULL
    cdef const uint8_t* known = NULL
    cdef uint16_t port = 0, known_port = 0
    cdef uint32_t n = udp_address_bytes_c(inb.source, &raw, &port)
    peer_get_path_c(slot, &path)
    if n == 0 or (path.address.name_bytes and n == udp_address_bytes_c(&path.address, &known, &known_port)
                  and port == known_port and memcmp(raw, known, n) == 0):
        return
    if not _may_tell(inb, slot):
        return
    memset(&record, 0, sizeof(record))
    record.kind = EV_ROAMED
    record.subject = peer
    record.generation = slot.generation
    _source_c(&record, raw, n, port)
    ring_put_c(inb.plane.workers[inb.worker].ring, &record, NULL, 0, NULL, 0)


cdef int inbound_transport_c(inbound_t* inb, const uint8_t* message, uint32_t n, uint8_t* plain) noexcept nogil:
    """1 when the datagram was a transport message, good or bad."""
    cdef plane_t* plane = inb.plane
    cdef session_t* session = inb.session
    cdef peer_t* slot
    cdef uint32_t index = 0
    cdef uint64_t counter = 0
    cdef uint64_t age
    if not transport_parse_c(message, n, &index, &counter):
        return 0
    if session == NULL or inb.index != index:
        session = session_find_c(<session_table_t*> fast_loadp(&plane.sessions), index)
        inb.session = session
        inb.index = index
    slot = peer_find_c(&plane.peers, session.peer) if session != NULL else NULL
    if slot == NULL or fast_load32(&session.dead):
        count_c(plane, inb.worker, IN_NO_SESSION, 1)
        return 1
    age = inb.now - session.created if inb.now > session.created else 0
    if age >= REJECT_AFTER_NS:
        count_drop_c(plane, inb.worker, slot, IN_EXPIRED, 1)
        return 1
    if inb.aead.open(inb.aead_context, plain, message + TRANSPORT_HEADER_BYTES, n - TRANSPORT_HEADER_BYTES, counter,
                     session.receive_key) != 0:
        count_drop_c(plane, inb.worker, slot, IN_FORGED, 1)
        return 1
    if not session_accept_c(session, counter):
        count_drop_c(plane, inb.worker, slot, IN_REPLAYED, 1)
        return 1
    if fast_loadp(&slot.next) == session:
        _promote(inb, slot, session)
    _account(inb, session.peer, slot, n, n > TRANSPORT_OVERHEAD_BYTES)
    if inb.source != NULL and fast_peek32(&slot.roams):
        _roamed(inb, session.peer, slot)
    if session.initiator and age >= REKEY_ON_RECEIVE_NS:
        event_rekey_c(plane, inb.worker, session)
    if n > TRANSPORT_OVERHEAD_BYTES:
        _plain(inb, session.peer, slot, plain, n - TRANSPORT_OVERHEAD_BYTES)
    return 1


cdef inline uint32_t _kind(const uint8_t* data, uint32_t n) noexcept nogil:
    """Which limit a datagram for the loop falls under; 0 when it is nothing that we know."""
    if n == INITIATION_BYTES and data[0] == 1 or n == RESPONSE_BYTES and data[0] == 2:
        return SOURCE_HANDSHAKE
    if n == COOKIE_BYTES and data[0] == 3 or n >= DISCO_BYTES and memcmp(data, DISCO_MAGIC, 6) == 0:
        return SOURCE_OTHER
    if data[0] < 0x40 and memcmp(data + 4, STUN_COOKIE, 4) == 0:
        return SOURCE_OTHER
    return 0


cdef void _punt_datagram(inbound_t* inb, const uint8_t* data, uint32_t n, const udp_address_t* source) noexcept nogil:
    cdef record_t record
    cdef const uint8_t* raw = NULL
    cdef uint16_t port = 0
    cdef uint32_t bytes_, kind = _kind(data, n)
    memset(&record, 0, sizeof(record))
    bytes_ = udp_address_bytes_c(source, &raw, &port)
    if kind == 0 or bytes_ == 0:
        count_c(inb.plane, inb.worker, IN_UNKNOWN, 1)
        return
    if not source_allow_c(inb.sources, raw, bytes_, kind, inb.now):
        count_c(inb.plane, inb.worker, IN_SOURCE_LIMIT, 1)
        return
    record.kind = EV_DATAGRAM
    record.subject = -1
    _source_c(&record, raw, bytes_, port)
    ring_put_c(inb.plane.workers[inb.worker].ring, &record, NULL, 0, data, n)


cdef void inbound_datagrams_c(inbound_t* inb, uint8_t* data, uint32_t n, uint32_t segment,
                              const udp_address_t* source) noexcept nogil:
    """One read of the socket: datagrams of segment bytes, the last one shorter; opened in place."""
    cdef uint32_t offset = 0, part
    if segment == 0:
        count_c(inb.plane, inb.worker, IN_TRUNCATED, 1)
        return
    if n == 0:
        count_c(inb.plane, inb.worker, IN_RUNT, 1)
        return
    inb.source = source
    _comes_by(inb, IN_IPV4_PACKETS if (<const sockaddr*> source.name).sa_family == AF_INET else IN_IPV6_PACKETS)
    while offset < n:
        part = segment if n - offset > segment else n - offset
        if part < RUNT:
            count_c(inb.plane, inb.worker, IN_RUNT, 1)
        elif not inbound_transport_c(inb, data + offset, part, data + offset + TRANSPORT_HEADER_BYTES):
            _punt_datagram(inb, data + offset, part, source)
        offset += part
    inb.source = NULL


cdef void inbound_relayed_c(inbound_t* inb, const uint8_t* data, uint32_t n, uint32_t segment,
                            uint8_t* plain) noexcept nogil:
    cdef uint32_t offset = 0, part
    _comes_by(inb, IN_DERP_PACKETS)
    while offset < n:
        part = segment if n - offset > segment else n - offset
        if not inbound_transport_c(inb, data + offset, part, plain + offset):
            count_c(inb.plane, inb.worker, IN_UNKNOWN, 1)
        offset += part
