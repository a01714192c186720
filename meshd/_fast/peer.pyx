"""Peer slots; the contract is in peer.pxd."""
# freethreading: counters are atomic, path and session pointers change under locks.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free

from meshd._fast.atomics cimport (
    fast_add64,
    fast_load32,
    fast_loadp,
    fast_lock,
    fast_peek64,
    fast_set64,
    fast_storep,
    fast_unlock,
)

cdef extern from "<stdlib.h>" nogil:
    void* calloc(size_t n, size_t size)


cdef peer_t* peer_slot_c(peer_table_t* table, uint32_t index) noexcept nogil:
    """The slot, its chunk allocated when need be; NULL beyond the limit or without memory."""
    cdef uint32_t chunk = index // PEER_CHUNK
    cdef void* memory
    if chunk >= PEER_CHUNKS:
        return NULL
    if table.chunks[chunk] == NULL:
        memory = calloc(PEER_CHUNK, sizeof(peer_t))
        if memory == NULL:
            return NULL
        fast_storep(&table.chunks[chunk], memory)
    return <peer_t*> table.chunks[chunk] + index % PEER_CHUNK


cdef peer_t* peer_find_c(const peer_table_t* table, int32_t index) noexcept nogil:
    """The slot of a peer in use, else NULL."""
    cdef peer_t* peer
    if index < 0 or index >= PEER_CHUNK * PEER_CHUNKS:
        return NULL
    peer = <peer_t*> fast_loadp(&table.chunks[index // PEER_CHUNK])
    if peer == NULL:
        return NULL
    peer += index % PEER_CHUNK
    return peer if fast_load32(&peer.in_use) else NULL


cdef void peer_table_free_c(peer_table_t* table) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t> PEER_CHUNKS):
        free(table.chunks[i])
        table.chunks[i] = NULL


cdef void peer_set_path_c(peer_t* peer, const path_t* path) noexcept nogil:
    fast_lock(&peer.path_lock)
    peer.path = path[0]
    fast_unlock(&peer.path_lock)


cdef void peer_get_path_c(peer_t* peer, path_t* path) noexcept nogil:
    """A consistent copy; any thread."""
    fast_lock(&peer.path_lock)
    path[0] = peer.path
    fast_unlock(&peer.path_lock)


cdef void peer_sent_c(peer_t* peer, uint64_t now, uint64_t packets, uint64_t n, int data) noexcept nogil:
    """Count authenticated packets sent; data: they were no keepalives."""
    fast_add64(&peer.tx_packets, packets)
    fast_add64(&peer.tx_bytes, n)
    fast_set64(&peer.last_tx, now)
    if fast_peek64(&peer.owed_since):
        fast_set64(&peer.owed_since, 0)
    if data:
        fast_set64(&peer.last_tx_data, now)
        if fast_peek64(&peer.unanswered_since) == 0:
            fast_set64(&peer.unanswered_since, now)


cdef void peer_received_c(peer_t* peer, uint64_t now, uint64_t packets, uint64_t n, int data) noexcept nogil:
    """Count authenticated packets received; data: not only keepalives."""
    fast_add64(&peer.rx_packets, packets)
    fast_add64(&peer.rx_bytes, n)
    fast_set64(&peer.last_rx, now)
    if fast_peek64(&peer.unanswered_since):
        fast_set64(&peer.unanswered_since, 0)
    if data:
        fast_set64(&peer.last_rx_data, now)
        if fast_peek64(&peer.owed_since) == 0:
            fast_set64(&peer.owed_since, now)


cdef int peer_install_c(peer_t* peer, session_t* session, int current, session_t** dropped) noexcept nogil:
    """A new pair: the initiator may use it at once (current), the responder once it was confirmed (next)."""
    cdef int n = 0
    fast_lock(&peer.lock)
    if peer.previous != NULL:
        dropped[n] = <session_t*> peer.previous
        n += 1
    if not current:
        if peer.next != NULL:
            dropped[n] = <session_t*> peer.next
            n += 1
        fast_storep(&peer.previous, NULL)
        fast_storep(&peer.next, session)
    else:
        if peer.next != NULL:
            # The unconfirmed pair stays for what its owner may still send.
            if peer.current != NULL:
                dropped[n] = <session_t*> peer.current
                n += 1
            fast_storep(&peer.previous, peer.next)
            fast_storep(&peer.next, NULL)
        else:
            fast_storep(&peer.previous, peer.current)
        fast_storep(&peer.current, session)
    fast_unlock(&peer.lock)
    return n


cdef int peer_promote_c(peer_t* peer, session_t* session, session_t** dropped) noexcept nogil:
    """The first authenticated packet on next: it becomes current. -1 when another thread was first."""
    cdef int n = 0
    fast_lock(&peer.lock)
    if peer.next != session:
        fast_unlock(&peer.lock)
        return -1
    if peer.previous != NULL:
        dropped[0] = <session_t*> peer.previous
        n = 1
    fast_storep(&peer.previous, peer.current)
    fast_storep(&peer.current, session)
    fast_storep(&peer.next, NULL)
    fast_unlock(&peer.lock)
    return n


cdef session_t* peer_session_c(peer_t* peer) noexcept nogil:
    cdef void* session
    # Under the lock, because a promotion on another thread moves sessions between the places.
    fast_lock(&peer.lock)
    session = peer.next
    if session == NULL:
        session = peer.current
    if session == NULL:
        session = peer.previous
    fast_unlock(&peer.lock)
    return <session_t*> session


cdef int peer_forget_c(peer_t* peer, const session_t* session) noexcept nogil:
    """Take a session out of its slot; 0 when it is in none."""
    cdef int found = 1
    fast_lock(&peer.lock)
    if peer.previous == session:
        fast_storep(&peer.previous, NULL)
    elif peer.current == session:
        fast_storep(&peer.current, NULL)
    elif peer.next == session:
        fast_storep(&peer.next, NULL)
    else:
        found = 0
    fast_unlock(&peer.lock)
    return found
