"""Shared state of a data plane and the events it raises; the contract is in planestate.pxd."""
# freethreading: each worker_t belongs to one thread; the rest as planestate.pxd says.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from meshd._fast.atomics cimport fast_casp, fast_loadp, fast_peek32, fast_store32, fast_swap32
from meshd._fast.peer cimport PEER_DROPS, peer_find_c
from meshd._fast.ring cimport ring_put_c

COUNTER_NAMES = (
    "out_malformed",
    "out_filtered",
    "out_no_route",
    "out_staged_limit",
    "out_too_big",
    "out_no_path",
    "out_no_socket",
    "out_socket_full",
    "out_refused",
    "out_unreachable",
    "out_socket_error",
    "out_relay_full",
    "out_gso_off",
    "out_seal_error",
    "out_via_too_big",
    "out_via_refused",
    "in_runt",
    "in_unknown",
    "in_source_limit",
    "in_truncated",
    "in_no_session",
    "in_expired",
    "in_forged",
    "in_replayed",
    "in_malformed",
    "in_source",
    "in_filtered",
    "in_via_no_ipv4",
    "in_via_refused",
    "in_via_no_port",
    "in_via_no_flow",
    "in_event_limit",
    "in_via_evicted",
    "in_device_error",
    "in_gro_off",
    "in_socket_error",
    "tun_reads",
    "tun_writes",
    "udp_writes",
    "udp_reads",
    "tun_lent",
    "tun_returned",
    "out_ipv4_packets",
    "out_ipv4_bytes",
    "out_ipv6_packets",
    "out_ipv6_bytes",
    "out_derp_packets",
    "out_derp_bytes",
    "in_ipv4_packets",
    "in_ipv4_bytes",
    "in_ipv6_packets",
    "in_ipv6_bytes",
    "in_derp_packets",
    "in_derp_bytes",
)
assert len(COUNTER_NAMES) == COUNTERS <= 64
assert IN_EVENT_LIMIT < PEER_DROPS  # the last that names a peer


cdef int event_c(plane_t* plane, uint32_t worker, uint16_t kind, int32_t peer, uint32_t value,
                 const uint8_t* data, uint32_t n) noexcept nogil:
    """Tell the loop; 0 when its ring is full, which is counted there."""
    cdef record_t record
    cdef peer_t* slot = peer_find_c(&plane.peers, peer)
    memset(&record, 0, sizeof(record))
    record.kind = kind
    record.subject = peer
    record.value = value
    record.generation = slot.generation if slot != NULL else 0
    return ring_put_c(plane.workers[worker].ring, &record, NULL, 0, data, n)


cdef void event_active_c(plane_t* plane, uint32_t worker, int32_t index, peer_t* peer) noexcept nogil:
    """EV_ACTIVE, unless it was sent since the loop allowed it last."""
    if fast_peek32(&peer.active) == 0 and fast_swap32(&peer.active, 1) == 0:
        if not event_c(plane, worker, EV_ACTIVE, index, 0, NULL, 0):
            fast_store32(&peer.active, 0)


cdef void event_rekey_c(plane_t* plane, uint32_t worker, session_t* session) noexcept nogil:
    """EV_REKEY, once per session."""
    if fast_peek32(&session.rekey_asked) == 0 and fast_swap32(&session.rekey_asked, 1) == 0:
        if not event_c(plane, worker, EV_REKEY, session.peer, session.local_index, NULL, 0):
            fast_store32(&session.rekey_asked, 0)


cdef void drop_session_c(plane_t* plane, session_t* session) noexcept nogil:
    """Take a session out of use; the loop thread removes it from the table and wipes it. Any thread, once."""
    cdef void* head
    if fast_swap32(&session.dead, 1):
        return
    while True:
        head = fast_loadp(&plane.dead)
        session.next_dead = <session_t*> head
        if fast_casp(&plane.dead, head, session):
            return
