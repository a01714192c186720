"""Rings of event records from worker threads to the event loop, and the doorbell they share.

A ring has one producer thread and one consumer thread. Records are contiguous in memory.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct doorbell_t:
    int fd                      # eventfd
    uint32_t rung               # 1 from the first record until the consumer found all rings empty

cdef struct record_t:           # 40 bytes before the data of every record
    uint32_t bytes              # of data
    uint16_t kind
    uint16_t port
    int32_t subject             # peer or relay
    uint32_t value              # session index or errno
    uint8_t address[16]
    uint8_t address_bytes       # 0, 4 or 16
    uint8_t pad[3]
    uint32_t generation         # of the peer

cdef struct ring_t:
    uint8_t* data
    uint64_t size               # power of two
    doorbell_t* bell
    uint8_t pad0[40]
    uint64_t head               # bytes ever written; the producer's
    uint64_t dropped
    uint8_t pad1[48]
    uint64_t tail               # bytes ever consumed
    uint8_t pad2[56]

cdef int bell_open_c(doorbell_t* bell) noexcept nogil
cdef void bell_ring_c(doorbell_t* bell) noexcept nogil
cdef void bell_quiet_c(doorbell_t* bell) noexcept nogil

cdef ring_t* ring_new_c(uint64_t size, doorbell_t* bell) noexcept nogil
cdef void ring_free_c(ring_t* ring) noexcept nogil
cdef int ring_put_c(ring_t* ring, const record_t* record, const uint8_t* head, uint32_t head_bytes,
                    const uint8_t* data, uint32_t data_bytes) noexcept nogil
cdef const record_t* ring_peek_c(ring_t* ring) noexcept nogil
cdef void ring_release_c(ring_t* ring, const record_t* record) noexcept nogil
