"""What packet threads and the event loop share: the state of one data plane."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshd._fast.atomics cimport fast_add64, fast_peek64, fast_set64
from meshd._fast.epoch cimport EPOCH_READERS, epoch_t
from meshd._fast.flow cimport flow_table_t
from meshd._fast.lpm cimport lpm_t
from meshd._fast.peer cimport peer_t, peer_table_t
from meshd._fast.ring cimport doorbell_t, record_t, ring_t
from meshd._fast.ruleset cimport filter_t
from meshd._fast.session cimport session_t

cdef enum:
    MAX_QUEUES = 8              # a power of two: _send_udp
    MAX_RECEIVERS = 8
    RECEIVER_WORKER = 8         # the slots: senders, receivers from here on,
    LOOP_WORKER = 16            # and what the loop thread itself does
    WORKERS = 17
    MAX_SERVICES = 8

cdef enum:
    EV_DATAGRAM = 1
    EV_STAGED = 2
    EV_ACTIVE = 3
    EV_REKEY = 4
    EV_CONFIRMED = 5
    EV_TSMP = 6
    EV_SERVICE = 7
    EV_LOCAL = 8
    EV_RELAY = 9                # not in the rings: found in the relay queues
    EV_DENIED = 10
    EV_SEND_ERROR = 11
    EV_ECHO = 12
    EV_ROAMED = 13

cdef enum counter_t:            # the names are in planestate.pyx, in this order
    OUT_MALFORMED
    OUT_FILTERED
    OUT_NO_ROUTE
    OUT_STAGED_LIMIT
    OUT_TOO_BIG
    OUT_NO_PATH
    OUT_NO_SOCKET
    OUT_SOCKET_FULL
    OUT_REFUSED
    OUT_UNREACHABLE
    OUT_SOCKET_ERROR
    OUT_RELAY_FULL
    OUT_GSO_OFF
    OUT_SEAL_ERROR
    OUT_VIA_TOO_BIG
    OUT_VIA_REFUSED
    IN_RUNT
    IN_UNKNOWN
    IN_SOURCE_LIMIT
    IN_TRUNCATED
    IN_NO_SESSION
    IN_EXPIRED
    IN_FORGED
    IN_REPLAYED
    IN_MALFORMED
    IN_SOURCE
    IN_FILTERED
    IN_VIA_NO_IPV4
    IN_VIA_REFUSED
    IN_VIA_NO_PORT
    IN_VIA_NO_FLOW
    IN_EVENT_LIMIT
    IN_VIA_EVICTED
    IN_DEVICE_ERROR
    IN_GRO_OFF
    IN_SOCKET_ERROR
    TUN_READS
    TUN_WRITES
    UDP_WRITES
    UDP_READS
    TUN_LENT
    TUN_RETURNED
    OUT_IPV4_PACKETS            # each pair: packets, then bytes
    OUT_IPV4_BYTES
    OUT_IPV6_PACKETS
    OUT_IPV6_BYTES
    OUT_DERP_PACKETS
    OUT_DERP_BYTES
    IN_IPV4_PACKETS
    IN_IPV4_BYTES
    IN_IPV6_PACKETS
    IN_IPV6_BYTES
    IN_DERP_PACKETS
    IN_DERP_BYTES
    COUNTERS

cdef struct worker_t:           # one per thread, written by that thread only
    uint64_t counts[64]
    ring_t* ring
    uint64_t pad[7]

cdef struct tun_queue_t:        # one per TUN queue and its sender thread
    int fd
    int wake_fd                 # tells the sender that the queue is its own again
    void* lent                  # outbound_t*: the receiver of the same number carries the packets, until it is NULL
    uint64_t busy_at            # when one of the two had much to do, nanoseconds
    uint64_t pad[5]

cdef struct services_t:
    uint32_t count
    uint8_t bytes[8]            # 4 or 16
    uint8_t addresses[8][16]

cdef struct own_address_t:
    uint32_t bytes              # 4 or 16
    uint8_t raw[16]

cdef struct own_addresses_t:
    uint32_t count
    own_address_t addresses[1]  # so many

cdef struct plane_t:
    tun_queue_t tuns[8]
    int tun_count
    int vnet
    uint32_t mtu
    uint32_t receivers          # threads
    uint32_t udp4[8]            # fds, as unsigned for the atomics, repeated to the end; 0xffffffff = none
    uint32_t udp6[8]
    uint32_t udp4_count         # so many are different: the first for receiver 0, the next for receiver 1, ...
    uint32_t udp6_count
    uint32_t udp_mode4          # UDP_GSO, UDP_TAIL
    uint32_t udp_mode6
    uint32_t udp_changes        # set_udp was called so often
    uint32_t udp_adopted[8]     # and each receiver has caught up with this one
    uint32_t gro_features       # what threads that start may merge for the TUN
    int stop_fd
    int wake_fds[8]             # tell receivers of new sockets, and of a TUN queue that is lent
    uint32_t receiving[8]       # which of them run
    uint32_t stopping
    uint32_t hurry              # the loop waits for the threads: they do not wait for room in a socket
    uint32_t denied_lock
    uint64_t denied_since       # start of the second in which `denied` were reported
    uint64_t denied
    doorbell_t bell
    epoch_t epoch
    peer_table_t peers
    void* sessions              # session_table_t*, published
    void* dead                  # session_t* list of what promotions dropped
    void* filter                # const filter_t*, published
    void* shield                # the same without rules, for jailed peers
    void* services              # services_t*, published
    void* own                   # own_addresses_t*, published, NULL = unknown: no peer sends from there
    void* via                   # const via_t*, published; NULL = this node offers no via route
    lpm_t* routes
    flow_table_t* flows         # published
    flow_table_t* shield_flows
    uint64_t echo[1024]         # bitmap of ICMP identifiers whose replies are ours
    worker_t workers[17]

cdef inline void count_c(plane_t* plane, uint32_t worker, uint32_t counter, uint64_t n) noexcept nogil:
    # Only the worker writes, the loop may be reading.
    fast_set64(&plane.workers[worker].counts[counter], fast_peek64(&plane.workers[worker].counts[counter]) + n)

cdef inline void count_traffic_c(plane_t* plane, uint32_t worker, uint32_t counter, uint64_t packets,
                                 uint64_t n) noexcept nogil:
    count_c(plane, worker, counter, packets)
    count_c(plane, worker, counter + 1, n)

cdef inline void count_drop_c(plane_t* plane, uint32_t worker, peer_t* slot, uint32_t counter,
                              uint64_t n) noexcept nogil:
    # Of all and of the peer; the counter is one below PEER_DROPS.
    count_c(plane, worker, counter, n)
    fast_add64(&slot.drops[counter], n)

cdef int event_c(plane_t* plane, uint32_t worker, uint16_t kind, int32_t peer, uint32_t value,
                 const uint8_t* data, uint32_t n) noexcept nogil
cdef void event_active_c(plane_t* plane, uint32_t worker, int32_t index, peer_t* peer) noexcept nogil
cdef void event_rekey_c(plane_t* plane, uint32_t worker, session_t* session) noexcept nogil
cdef void drop_session_c(plane_t* plane, session_t* session) noexcept nogil
