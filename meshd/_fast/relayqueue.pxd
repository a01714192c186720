"""Datagrams waiting for a relay connection, as ready SendPacket frames (DERP protocol)."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    RELAY_QUEUE_BYTES = 524288      # about 40 ms of a relayed 100 Mbit/s
    RELAY_FRAME_HEADER = 37         # type, length u32 big-endian, receiver's node key
    RELAY_SLOTS = 256

cdef struct relay_queue_t:
    int relay                       # region
    uint32_t lock
    uint32_t start                  # of the oldest frame in data
    uint32_t used                   # bytes from there on
    uint32_t told                   # 0 empty, 1 the bell was rung for frames, 2 the loop knows of them
    uint8_t* data

cdef relay_queue_t* relay_queue_new_c(int relay) noexcept nogil
cdef void relay_queue_free_c(relay_queue_t* queue) noexcept nogil
cdef int relay_push_c(relay_queue_t* queue, const uint8_t* node_key, const uint8_t* data, uint32_t n,
                      uint32_t segment, bint bundle, uint32_t* lost) noexcept nogil
# 1 once after frames began to wait.
cdef int relay_news_c(relay_queue_t* queue) noexcept nogil
# Whole frames from the oldest on, of at most limit bytes but at least one: how many bytes, 0 = none wait.
cdef uint32_t relay_ready_c(relay_queue_t* queue, uint32_t limit) noexcept nogil
# Copies those n bytes out. Frames that are left are known to the loop when it goes_on taking, else the bell rings for
# them: 1. Only one thread takes.
cdef int relay_take_c(relay_queue_t* queue, uint8_t* frames, uint32_t n, bint goes_on) noexcept nogil
