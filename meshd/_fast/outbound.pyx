"""Outbound packet path; the contract is in outbound.pxd."""
# freethreading: a context belongs to one thread at a time.

from libc.errno cimport EAGAIN, EHOSTUNREACH, ENETUNREACH, ENOBUFS, EPERM
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from meshd._fast.aead cimport TRANSPORT_HEADER_BYTES, TRANSPORT_OVERHEAD_BYTES, default_backend_c, transport_seal_c
from meshd._fast.atomics cimport fast_load32, fast_loadp, fast_peek64, fast_set64, fast_store32
from meshd._fast.coalesce cimport iovec
from meshd._fast.filter cimport FILTER_ACCEPT, filter_out_c
from meshd._fast.flow cimport flow_table_t
from meshd._fast.lpm cimport lpm_lookup_c
from meshd._fast.masquerade cimport masquerade_out_c, masquerade_t
from meshd._fast.packet cimport FAST_OK, parse_c
from meshd._fast.peer cimport peer_find_c, peer_get_path_c, peer_sent_c
from meshd._fast.planestate cimport (
    EV_SEND_ERROR,
    EV_SERVICE,
    EV_STAGED,
    MAX_QUEUES,
    OUT_DERP_PACKETS,
    OUT_FILTERED,
    OUT_GSO_OFF,
    OUT_IPV4_PACKETS,
    OUT_IPV6_PACKETS,
    OUT_MALFORMED,
    OUT_NO_PATH,
    OUT_NO_ROUTE,
    OUT_NO_SOCKET,
    OUT_REFUSED,
    OUT_RELAY_FULL,
    OUT_SEAL_ERROR,
    OUT_SOCKET_ERROR,
    OUT_SOCKET_FULL,
    OUT_STAGED_LIMIT,
    OUT_TOO_BIG,
    OUT_UNREACHABLE,
    OUT_VIA_REFUSED,
    OUT_VIA_TOO_BIG,
    UDP_WRITES,
    count_c,
    count_drop_c,
    count_traffic_c,
    event_active_c,
    event_c,
    event_rekey_c,
    services_t,
)
from meshd._fast.relayqueue cimport relay_push_c
from meshd._fast.ring cimport bell_ring_c, record_t, ring_put_c
from meshd._fast.ruleset cimport filter_t
from meshd._fast.segment cimport (
    SEGMENT_OK,
    VNET_BYTES,
    VNET_NEEDS_CSUM,
    emit_c,
    padded_c,
    piece_bytes_c,
    plan_c,
    segment_plan_t,
)
from meshd._fast.session cimport (
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_NS,
    SECOND,
    session_reserve_c,
    session_t,
    session_usable_c,
)
from meshd._fast.translate cimport IP6_MIN_MTU
from meshd._fast.tunio cimport TUN_READ_BYTES, tun_write_c
from meshd._fast.udpio cimport AF_INET, UDP_GSO, UDP_MAX_BYTES, UDP_MAX_SEGMENTS, sockaddr, udp_send_c
from meshd._fast.viaflow cimport via_tick_c
from meshd._fast.viaout cimport (
    VIA_OUT_CUT,
    VIA_OUT_PARTS,
    VIA_OUT_PLAIN,
    VIA_OUT_TOO_BIG,
    VIA_OUT_WHOLE,
    VIA_TOO_BIG_BYTES,
    via_out_c,
    via_out_result_t,
    via_out_t,
    via_part_c,
    via_too_big_c,
)
from meshd._fast.viaroutes cimport VIA_HEADROOM, via_t

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t n, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t n)
    int PROT_READ
    int PROT_WRITE
    int MAP_PRIVATE
    int MAP_ANONYMOUS
    void* MAP_FAILED

cdef enum:
    AREA = OUT_ARENA + VIA_HEADROOM + TUN_READ_BYTES + VIA_HEADROOM + 65536 + 65536
    TOLD_PER_SECOND = 100       # senders of packets that grow too large
    STAGED_PER_SECOND = 128     # containers a peer without session may hand up; more would only be thrown away there


cdef int outbound_open_c(outbound_t* out, plane_t* plane, uint32_t worker, int patient) noexcept nogil:
    """0 when memory is short. Buffers cost nothing until they are used."""
    cdef void* area
    memset(out, 0, sizeof(outbound_t))
    area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if area == MAP_FAILED:
        return 0
    out.arena = <uint8_t*> area
    out.input = out.arena + OUT_ARENA + VIA_HEADROOM
    out.scratch = out.input + TUN_READ_BYTES
    out.part = out.scratch + VIA_HEADROOM + 65536
    out.plane = plane
    out.worker = worker
    out.patient = patient
    out.aead = default_backend_c()
    out.aead_context = out.aead.ctx_new()
    if out.aead_context == NULL:
        munmap(area, AREA)
        out.arena = NULL
        return 0
    return 1


cdef void outbound_close_c(outbound_t* out) noexcept nogil:
    if out.arena != NULL:
        out.aead.ctx_free(out.aead_context)
        munmap(out.arena, AREA)
        out.arena = NULL


cdef void _send_failed(outbound_t* out, run_t* run, int failure) noexcept nogil:
    cdef uint32_t why
    if failure == EAGAIN or failure == ENOBUFS:
        why = OUT_SOCKET_FULL
    elif failure == EPERM:
        why = OUT_REFUSED           # a firewall rule of this host: like a loss on the way
    elif failure == EHOSTUNREACH or failure == ENETUNREACH:
        why = OUT_UNREACHABLE
        if out.now - fast_peek64(&run.slot.send_error_at) >= SECOND:
            fast_set64(&run.slot.send_error_at, out.now)
            event_c(out.plane, out.worker, EV_SEND_ERROR, run.peer, <uint32_t> failure, NULL, 0)
    else:
        why = OUT_SOCKET_ERROR
    count_drop_c(out.plane, out.worker, run.slot, why, run.count)


cdef void _send_udp(outbound_t* out, run_t* run) noexcept nogil:
    cdef plane_t* plane = out.plane
    cdef bint v4 = (<sockaddr*> run.path.address.name).sa_family == AF_INET
    # Any of a family's sockets would do, they have the same port; a socket of its own spares a thread some waiting.
    cdef uint32_t turn = out.worker & (MAX_QUEUES - 1)
    cdef int fd = <int> fast_load32(&plane.udp4[turn] if v4 else &plane.udp6[turn])
    cdef uint32_t* shared = &plane.udp_mode4 if v4 else &plane.udp_mode6
    cdef uint32_t before = fast_load32(shared), mode = before
    cdef int failure
    if fd < 0:
        count_drop_c(plane, out.worker, run.slot, OUT_NO_SOCKET, run.count)
        return
    failure = udp_send_c(fd, &run.path.address, out.arena + run.offset, run.bytes, run.segment, &mode,
                         out.patient and not fast_load32(&plane.hurry))
    count_c(plane, out.worker, UDP_WRITES, 1)
    if (before & ~mode) & UDP_GSO:
        fast_store32(shared, mode)
        count_c(plane, out.worker, OUT_GSO_OFF, 1)
    if failure:
        _send_failed(out, run, failure)
    else:
        count_traffic_c(plane, out.worker, OUT_IPV4_PACKETS if v4 else OUT_IPV6_PACKETS, run.count, run.bytes)


cdef void _send_run(outbound_t* out, run_t* run) noexcept nogil:
    cdef bint udp = run.path.address.name_bytes != 0
    cdef uint32_t lost = 0
    if udp:
        _send_udp(out, run)
    if run.path.relay != NULL and (not udp or out.now > run.path.trusted_until):
        if relay_push_c(run.path.relay, run.slot.public_key, out.arena + run.offset, run.bytes, run.segment,
                        fast_load32(&run.slot.bundles) != 0, &lost):
            bell_ring_c(&out.plane.bell)
        if lost:
            count_drop_c(out.plane, out.worker, run.slot, OUT_RELAY_FULL, lost)
        # All but the last have the size of a segment; those that had no room are the last.
        count_traffic_c(out.plane, out.worker, OUT_DERP_PACKETS, run.count - lost,
                        run.bytes if lost == 0 else (run.count - lost) * <uint64_t> run.segment)
    elif not udp:
        count_drop_c(out.plane, out.worker, run.slot, OUT_NO_PATH, run.count)


cdef void outbound_flush_c(outbound_t* out) noexcept nogil:
    """Send everything that is sealed."""
    cdef uint32_t i
    for i in range(out.run_count):
        _send_run(out, &out.runs[i])
    out.run_count = 0
    out.used = 0


cdef inline uint8_t* _place(outbound_t* out, int32_t index, peer_t* slot, uint32_t n) noexcept nogil:
    """Room for a datagram of n bytes, behind others of its peer where one send can take them all."""
    cdef run_t* run = &out.runs[out.run_count - 1] if out.run_count else NULL
    cdef uint8_t* at
    if (run == NULL or run.closed or run.peer != index or n > run.segment or run.count == UDP_MAX_SEGMENTS
            or run.bytes + n > UDP_MAX_BYTES):
        # What is complete goes out now: the receiver can work on it while this thread seals on.
        if out.run_count == OUT_RUNS or out.used >= OUT_EAGER:
            outbound_flush_c(out)
        run = &out.runs[out.run_count]
        out.run_count += 1
        run.offset = out.used
        run.bytes = run.count = run.closed = 0
        run.segment = n
        run.peer = index
        run.slot = slot
        peer_get_path_c(slot, &run.path)
    at = out.arena + out.used
    out.used += n
    run.bytes += n
    run.count += 1
    run.closed = n < run.segment
    return at


cdef inline void _keep_whole(outbound_t* out, uint32_t count, uint32_t n) noexcept nogil:
    """Begin a new run where the open one has no room for all of a super packet.

    What is sent in one piece is received, merged and handed to the host in one piece.
    """
    cdef run_t* run
    if out.run_count:
        run = &out.runs[out.run_count - 1]
        if run.count + count > UDP_MAX_SEGMENTS or run.bytes + n > UDP_MAX_BYTES:
            run.closed = 1


cdef int outbound_to_peer_c(outbound_t* out, int32_t index, const vnet_header_t* vnet, const uint8_t* packet,
                            uint32_t n) noexcept nogil:
    cdef segment_plan_t plan
    cdef session_t* session
    cdef peer_t* slot = peer_find_c(&out.plane.peers, index)
    cdef uint64_t counter, total = 0
    cdef uint32_t i, length = 0, padded, count = 1
    cdef uint8_t* at
    if slot == NULL:
        count_c(out.plane, out.worker, OUT_NO_ROUTE, 1)
        return OUT_DROPPED
    if n:
        if plan_c(&plan, vnet, packet, n) != SEGMENT_OK:
            count_drop_c(out.plane, out.worker, slot, OUT_MALFORMED, 1)
            return OUT_DROPPED
        count = plan.count
        length = piece_bytes_c(&plan, 0)
        if padded_c(length, out.plane.mtu) + TRANSPORT_OVERHEAD_BYTES > UDP_MAX_BYTES:
            count_drop_c(out.plane, out.worker, slot, OUT_TOO_BIG, 1)
            return OUT_DROPPED
    session = <session_t*> fast_loadp(&slot.current)
    if not session_usable_c(session, out.now) or not session_reserve_c(session, count, &counter):
        return OUT_NO_SESSION
    if count > 1:
        _keep_whole(out, count, count * (padded_c(length, out.plane.mtu) + TRANSPORT_OVERHEAD_BYTES))
    for i in range(count):
        length = padded = 0
        if n:
            length = piece_bytes_c(&plan, i)
            padded = padded_c(length, out.plane.mtu)
        at = _place(out, index, slot, padded + TRANSPORT_OVERHEAD_BYTES)
        if n:
            emit_c(&plan, i, at + TRANSPORT_HEADER_BYTES)
            memset(at + TRANSPORT_HEADER_BYTES + length, 0, padded - length)
        if transport_seal_c(out.aead, out.aead_context, at, padded, session.remote_index, counter + i,
                            session.send_key) != 0:
            # Without memory for the cipher: what stands there is plaintext, and zeros say nothing to anybody.
            memset(at, 0, padded + TRANSPORT_OVERHEAD_BYTES)
            count_drop_c(out.plane, out.worker, slot, OUT_SEAL_ERROR, 1)
        total += padded + TRANSPORT_OVERHEAD_BYTES
    peer_sent_c(slot, out.now, count, total, n != 0)
    event_active_c(out.plane, out.worker, index, slot)
    if counter + count > REKEY_AFTER_MESSAGES or (session.initiator and out.now > session.created
                                                  and out.now - session.created >= REKEY_AFTER_NS):
        event_rekey_c(out.plane, out.worker, session)
    return OUT_SENT


cdef void _stage(outbound_t* out, int32_t index, peer_t* slot, const vnet_header_t* vnet, const uint8_t* packet,
                 uint32_t n) noexcept nogil:
    """Hand a packet without session up, at a rate that a handshake can make use of."""
    cdef record_t record
    if out.now - fast_peek64(&slot.staged_since) >= SECOND:
        fast_set64(&slot.staged_since, out.now)
        fast_set64(&slot.staged, 0)
    if fast_peek64(&slot.staged) >= STAGED_PER_SECOND:
        count_drop_c(out.plane, out.worker, slot, OUT_STAGED_LIMIT, 1)
        return
    fast_set64(&slot.staged, fast_peek64(&slot.staged) + 1)
    memset(&record, 0, sizeof(record))
    record.kind = EV_STAGED
    record.subject = index
    record.generation = slot.generation
    ring_put_c(out.plane.workers[out.worker].ring, &record, <const uint8_t*> vnet, VNET_BYTES, packet, n)


cdef int _is_service(const services_t* services, const packet_info_t* info) noexcept nogil:
    cdef uint32_t i, n = 4 if info.version == 4 else 16
    for i in range(services.count):
        if services.bytes[i] == n and memcmp(services.addresses[i], info.dst, n) == 0:
            return 1
    return 0


cdef void _punt_service(outbound_t* out, const vnet_header_t* vnet, const uint8_t* packet, uint32_t n) noexcept nogil:
    """Whole packets with complete checksums, through the unused end of the arena."""
    cdef segment_plan_t plan
    cdef uint32_t i, length
    if plan_c(&plan, vnet, packet, n) != SEGMENT_OK:
        count_c(out.plane, out.worker, OUT_MALFORMED, 1)
        return
    outbound_flush_c(out)
    for i in range(plan.count):
        length = emit_c(&plan, i, out.arena)
        event_c(out.plane, out.worker, EV_SERVICE, -1, 0, out.arena, length)


cdef void _send_via(outbound_t* out, const vnet_header_t* vnet, const uint8_t* packet, uint32_t n) noexcept nogil:
    """A translated answer, to whoever began the flow. That came in through the filter, so this is not judged again."""
    cdef int32_t index = lpm_lookup_c(out.plane.routes, packet + 24, 6)
    cdef peer_t* slot = peer_find_c(&out.plane.peers, index)
    if slot == NULL:
        count_c(out.plane, out.worker, OUT_NO_ROUTE, 1)
    elif outbound_to_peer_c(out, index, vnet, packet, n) == OUT_NO_SESSION:
        _stage(out, index, slot, vnet, packet, n)


cdef void _tell_too_big(outbound_t* out, const uint8_t* packet, const packet_info_t* info,
                        uint32_t mtu) noexcept nogil:
    """Through the TUN to the sender, at a bounded rate."""
    cdef uint8_t message[VNET_BYTES + VIA_TOO_BIG_BYTES]
    cdef int header = VNET_BYTES if out.plane.vnet else 0
    cdef iovec piece
    count_c(out.plane, out.worker, OUT_VIA_TOO_BIG, 1)
    if out.now - out.told_since >= SECOND:
        out.told_since = out.now
        out.told = 0
    out.told += 1
    if out.told > TOLD_PER_SECOND:
        return
    memset(message, 0, VNET_BYTES)
    piece.iov_base = message
    piece.iov_len = header + via_too_big_c(packet, info, mtu, message + header)
    tun_write_c(out.plane.tuns[out.worker].fd, &piece, 1)


cdef bint _via(outbound_t* out, const via_t* via, const vnet_header_t* vnet, const uint8_t* packet,
               const packet_info_t* info) noexcept nogil:
    """1 when the packet was for a via flow, sent or not."""
    cdef uint32_t mtu = max(out.plane.mtu, <uint32_t> IP6_MIN_MTU), tick = via_tick_c(out.now), i, n
    cdef vnet_header_t none
    cdef packet_info_t piece
    cdef segment_plan_t plan
    cdef via_out_t made
    # It lies in this thread's buffer, with room before it.
    cdef via_out_result_t result = via_out_c(via, vnet, <uint8_t*> packet, info, mtu, tick, &made)
    if result == VIA_OUT_PLAIN:
        return False
    memset(&none, 0, sizeof(none))
    if result == VIA_OUT_WHOLE:
        _send_via(out, &made.vnet, made.packet, made.bytes)
    elif result == VIA_OUT_PARTS:
        for i in range(made.parts):
            _send_via(out, &none, out.part, via_part_c(&made, i, out.part))
    elif result == VIA_OUT_TOO_BIG:
        _tell_too_big(out, packet, info, mtu)
    elif result == VIA_OUT_CUT and plan_c(&plan, vnet, packet, info.total_bytes) == SEGMENT_OK:
        for i in range(plan.count):
            n = emit_c(&plan, i, out.scratch + VIA_HEADROOM)
            if parse_c(out.scratch + VIA_HEADROOM, n, &piece) == FAST_OK:
                _via(out, via, &none, out.scratch + VIA_HEADROOM, &piece)
    else:
        count_c(out.plane, out.worker, OUT_VIA_REFUSED, 1)
    return True


cdef void outbound_packet_c(outbound_t* out, const vnet_header_t* vnet, const uint8_t* packet,
                            uint32_t n) noexcept nogil:
    cdef plane_t* plane = out.plane
    cdef packet_info_t info
    cdef const services_t* services
    cdef peer_t* slot
    cdef int32_t index
    cdef const masquerade_t* masquerade
    cdef const via_t* via
    cdef bint jailed
    if parse_c(packet, n, &info) != FAST_OK:
        count_c(plane, out.worker, OUT_MALFORMED, 1)
        return
    services = <const services_t*> fast_loadp(&plane.services)
    if services != NULL and _is_service(services, &info):
        _punt_service(out, vnet, packet, info.total_bytes)
        return
    via = <const via_t*> fast_loadp(&plane.via)
    if via != NULL and info.version == 4 and _via(out, via, vnet, packet, &info):
        return
    index = lpm_lookup_c(plane.routes, info.dst, info.version)
    slot = peer_find_c(&plane.peers, index)
    if slot == NULL:
        count_c(plane, out.worker, OUT_NO_ROUTE, 1)
        return
    jailed = fast_load32(&slot.jailed) != 0
    if filter_out_c(<const filter_t*> fast_loadp(&plane.shield if jailed else &plane.filter),
                    plane.shield_flows if jailed else <flow_table_t*> fast_loadp(<void**> &plane.flows),
                    &info) != FILTER_ACCEPT:
        count_drop_c(plane, out.worker, slot, OUT_FILTERED, 1)
        return
    masquerade = <const masquerade_t*> fast_loadp(&slot.masquerade)
    if masquerade != NULL:
        # After the filter, which knows us by our own addresses; the packet lies in this thread's buffer.
        masquerade_out_c(masquerade, <uint8_t*> packet, &info, vnet.flags & VNET_NEEDS_CSUM)
    if outbound_to_peer_c(out, index, vnet, packet, info.total_bytes) == OUT_NO_SESSION:
        _stage(out, index, slot, vnet, packet, info.total_bytes)
