"""Sessions and their table; the contract is in session.pxd."""
# freethreading: see session.pxd.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from meshd._fast.atomics cimport fast_add64, fast_load32, fast_loadp, fast_lock, fast_peek64, fast_storep, fast_unlock
from meshd._fast.replay cimport replay_accept_c

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** out, size_t alignment, size_t n)

cdef extern from "<string.h>" nogil:
    void explicit_bzero(void* p, size_t n)

cdef enum:
    TOMBSTONE = 1


cdef session_t* session_new_c() noexcept nogil:
    cdef void* memory = NULL
    if posix_memalign(&memory, 64, sizeof(session_t)) != 0:
        return NULL
    memset(memory, 0, sizeof(session_t))
    return <session_t*> memory


cdef void session_free_c(void* session) noexcept nogil:
    """Wipe the keys, then free."""
    if session != NULL:
        explicit_bzero(session, sizeof(session_t))
        free(session)


cdef int session_usable_c(session_t* session, uint64_t now) noexcept nogil:
    """Whether the session may still seal and open: in use, not older than 180 s, counters left."""
    if session == NULL or fast_load32(&session.dead):
        return 0
    # A session of the future is one made since the thread read the clock.
    if now > session.created and now - session.created >= REJECT_AFTER_NS:
        return 0
    return fast_peek64(&session.send_counter) < REJECT_AFTER_MESSAGES


cdef int session_reserve_c(session_t* session, uint64_t count, uint64_t* first) noexcept nogil:
    """Take count send counters in a row. 0 when the session has not that many left.

    Threads that ask at the same time may each overshoot by their count; the 8192 counters between the
    limit and 2^64 keep the counter from wrapping, because a count is at most MAX_PIECES.
    """
    if fast_peek64(&session.send_counter) > REJECT_AFTER_MESSAGES - count:
        return 0
    first[0] = fast_add64(&session.send_counter, count)
    return first[0] <= REJECT_AFTER_MESSAGES - count


cdef int session_accept_c(session_t* session, uint64_t counter) noexcept nogil:
    """Replay check, after authentication; any thread."""
    cdef int accepted
    fast_lock(&session.lock)
    accepted = replay_accept_c(&session.window, counter)
    fast_unlock(&session.lock)
    return accepted


cdef session_table_t* session_table_new_c(uint64_t capacity) noexcept nogil:
    """capacity: a power of two."""
    cdef session_table_t* table = <session_table_t*> calloc(1, sizeof(session_table_t))
    if table == NULL:
        return NULL
    table.mask = capacity - 1
    table.slots = <void**> calloc(capacity, sizeof(void*))
    if table.slots == NULL:
        free(table)
        return NULL
    return table


cdef void session_table_free_c(void* table) noexcept nogil:
    if table != NULL:
        free((<session_table_t*> table).slots)
        free(table)


cdef inline uint64_t _start(const session_table_t* table, uint32_t index) noexcept nogil:
    return (index * <uint64_t> 0x9E3779B97F4A7C15) >> 20 & table.mask


cdef session_t* session_find_c(const session_table_t* table, uint32_t index) noexcept nogil:
    cdef uint64_t at = _start(table, index)
    cdef session_t* session
    while True:
        session = <session_t*> fast_loadp(&table.slots[at])
        if session == NULL:
            return NULL
        if <size_t> session != TOMBSTONE and session.local_index == index:
            return session
        at = (at + 1) & table.mask


cdef int session_insert_c(session_table_t* table, session_t* session) noexcept nogil:
    """0 when the table must grow first; a session of the same index must have been removed."""
    cdef uint64_t at
    if (table.used + 1) * 2 > table.mask + 1:
        return 0
    at = _start(table, session.local_index)
    while table.slots[at] != NULL:
        at = (at + 1) & table.mask
    fast_storep(&table.slots[at], session)
    table.used += 1
    table.live += 1
    return 1


cdef void session_remove_c(session_table_t* table, const session_t* session) noexcept nogil:
    cdef uint64_t at = _start(table, session.local_index)
    while table.slots[at] != NULL:
        if table.slots[at] == session:
            fast_storep(&table.slots[at], <void*> TOMBSTONE)
            table.live -= 1
            return
        at = (at + 1) & table.mask


cdef session_table_t* session_table_grown_c(const session_table_t* table) noexcept nogil:
    """A copy without removed slots, large enough for twice the live ones."""
    cdef uint64_t capacity = 64
    cdef uint64_t i
    cdef session_table_t* grown
    while capacity < (table.live + 1) * 4:
        capacity <<= 1
    grown = session_table_new_c(capacity)
    if grown == NULL:
        return NULL
    for i in range(table.mask + 1):
        if <size_t> table.slots[i] > TOMBSTONE:
            session_insert_c(grown, <session_t*> table.slots[i])
    return grown
