"""Peer slots of the data plane: sessions, path, traffic."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from meshd._fast.relayqueue cimport relay_queue_t
from meshd._fast.session cimport session_t
from meshd._fast.udpio cimport udp_address_t

cdef enum:
    PEER_CHUNK = 256                # slots that are allocated together
    PEER_CHUNKS = 1024              # at most 262144 peers; an unused chunk costs one pointer
    PEER_DROPS = 32                 # reasons that are counted per peer too

cdef struct path_t:
    udp_address_t address           # name_bytes 0 = no UDP path
    uint64_t trusted_until          # ns
    relay_queue_t* relay            # NULL = none

cdef struct peer_t:
    uint8_t public_key[32]
    uint32_t in_use
    uint32_t generation             # tells events of a former owner of the slot apart
    uint32_t jailed
    uint32_t active                 # EV_ACTIVE was sent
    uint32_t lock                   # of the three session pointers
    uint32_t path_lock
    uint32_t bundles                # the peer takes bundles of datagrams by relay
    uint32_t ipv4                   # its IPv4 address as in a packet, where that is needed; 0 = none
    path_t path
    void* previous                  # session_t*
    void* current
    void* next
    void* masquerade                # const masquerade_t*, published; NULL = it knows us by our own addresses
    uint32_t roams                  # EV_ROAMED is wanted
    uint32_t pad_roams
    uint64_t pad0[6]
    # outbound
    uint64_t tx_bytes
    uint64_t tx_packets
    uint64_t last_tx
    uint64_t last_tx_data
    uint64_t staged_since           # start of the second in which `staged` were punted
    uint64_t staged
    uint64_t send_error_at
    uint64_t pad1[9]
    # inbound
    uint64_t rx_bytes
    uint64_t rx_packets
    uint64_t last_rx
    uint64_t last_rx_data
    uint64_t owed_since             # first data received since our last packet
    uint64_t unanswered_since       # first data sent since the peer's last packet
    uint64_t told_since             # start of the second in which `told` packets were handed to the loop
    uint64_t told
    uint64_t pad2[8]
    uint64_t drops[PEER_DROPS]      # by counter_t; any thread

cdef struct peer_table_t:
    void* chunks[PEER_CHUNKS]       # peer_t*, published

cdef peer_t* peer_slot_c(peer_table_t* table, uint32_t index) noexcept nogil
cdef peer_t* peer_find_c(const peer_table_t* table, int32_t index) noexcept nogil
cdef void peer_table_free_c(peer_table_t* table) noexcept nogil

cdef void peer_set_path_c(peer_t* peer, const path_t* path) noexcept nogil
cdef void peer_get_path_c(peer_t* peer, path_t* path) noexcept nogil

cdef void peer_sent_c(peer_t* peer, uint64_t now, uint64_t packets, uint64_t n, int data) noexcept nogil
cdef void peer_received_c(peer_t* peer, uint64_t now, uint64_t packets, uint64_t n, int data) noexcept nogil

# Rotation, WireGuard paper 6.1 and 6.3. Sessions that fall out come back in dropped (room for 2); returns how many.
cdef int peer_install_c(peer_t* peer, session_t* session, int current, session_t** dropped) noexcept nogil
cdef int peer_promote_c(peer_t* peer, session_t* session, session_t** dropped) noexcept nogil
cdef int peer_forget_c(peer_t* peer, const session_t* session) noexcept nogil
cdef session_t* peer_session_c(peer_t* peer) noexcept nogil      # any that is left, else NULL
