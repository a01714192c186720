"""WireGuard sessions (keypairs) and the table that finds them by receiver index.

The loop thread installs and removes; packet threads look up without locks. The send counter is shared by adding blocks,
the replay window by a short lock.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from meshd._fast.replay cimport replay_t

cdef enum:
    SECOND = 1000000000             # the clock of the packet path counts nanoseconds

cdef extern from *:
    """
    #define REJECT_AFTER_MESSAGES (UINT64_MAX - (1u << 13))
    #define REKEY_AFTER_MESSAGES (UINT64_C(1) << 60)
    #define REKEY_AFTER_NS (UINT64_C(120) * 1000000000u)
    #define REKEY_ON_RECEIVE_NS (UINT64_C(165) * 1000000000u)
    #define REJECT_AFTER_NS (UINT64_C(180) * 1000000000u)
    """
    const uint64_t REJECT_AFTER_MESSAGES    # WireGuard paper 6.1
    const uint64_t REKEY_AFTER_MESSAGES
    const uint64_t REKEY_AFTER_NS
    const uint64_t REKEY_ON_RECEIVE_NS      # 180 - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
    const uint64_t REJECT_AFTER_NS

cdef struct session_t:
    uint32_t local_index
    uint32_t remote_index
    int32_t peer
    uint32_t initiator
    uint32_t dead                   # 1 when out of use; it may still be in the table
    uint32_t rekey_asked
    uint64_t created                # CLOCK_MONOTONIC, ns
    uint8_t send_key[32]
    uint8_t receive_key[32]
    session_t* next_dead
    uint8_t pad0[16]
    uint64_t send_counter
    uint8_t pad1[56]
    uint32_t lock                   # of the window
    replay_t window

cdef struct session_table_t:
    uint64_t mask
    uint64_t used                   # live and removed slots
    uint64_t live
    void** slots                    # session_t*, NULL = never used, TOMBSTONE = removed

cdef session_t* session_new_c() noexcept nogil
cdef void session_free_c(void* session) noexcept nogil
cdef int session_usable_c(session_t* session, uint64_t now) noexcept nogil
cdef int session_reserve_c(session_t* session, uint64_t count, uint64_t* first) noexcept nogil
cdef int session_accept_c(session_t* session, uint64_t counter) noexcept nogil

cdef session_table_t* session_table_new_c(uint64_t capacity) noexcept nogil
cdef void session_table_free_c(void* table) noexcept nogil
cdef session_t* session_find_c(const session_table_t* table, uint32_t index) noexcept nogil
cdef int session_insert_c(session_table_t* table, session_t* session) noexcept nogil
cdef void session_remove_c(session_table_t* table, const session_t* session) noexcept nogil
cdef session_table_t* session_table_grown_c(const session_table_t* table) noexcept nogil
