"""Relay queues; the contract is in relayqueue.pxd."""
# freethreading: guarded by the queue's lock.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from meshd._fast.atomics cimport fast_lock, fast_unlock
from meshd._fast.netbytes cimport put32be

cdef enum:
    FRAME_SEND_PACKET = 4


cdef relay_queue_t* relay_queue_new_c(int relay) noexcept nogil:
    cdef relay_queue_t* queue = <relay_queue_t*> calloc(1, sizeof(relay_queue_t))
    if queue == NULL:
        return NULL
    queue.relay = relay
    # Mapped by the allocator at this size: pages cost memory once frames reach them.
    queue.data = <uint8_t*> malloc(RELAY_QUEUE_BYTES)
    if queue.data == NULL:
        free(queue)
        return NULL
    return queue


cdef void relay_queue_free_c(relay_queue_t* queue) noexcept nogil:
    if queue != NULL:
        free(queue.data)
        free(queue)


cdef int relay_push_c(relay_queue_t* queue, const uint8_t* node_key, const uint8_t* data, uint32_t n,
                      uint32_t segment, uint32_t* lost) noexcept nogil:
    """Queue n bytes as datagrams of segment bytes. 1 when the loop must be told; lost counts those without room."""
    cdef uint32_t offset = 0, part
    cdef uint8_t* out
    cdef int tell = 0
    fast_lock(&queue.lock)
    while offset < n:
        part = segment if n - offset > segment else n - offset
        if queue.used + RELAY_FRAME_HEADER + part > RELAY_QUEUE_BYTES:
            lost[0] += 1
        else:
            out = queue.data + queue.used
            out[0] = FRAME_SEND_PACKET
            put32be(out + 1, 32 + part)
            memcpy(out + 5, node_key, 32)
            memcpy(out + RELAY_FRAME_HEADER, data + offset, part)
            queue.used += RELAY_FRAME_HEADER + part
        offset += part
    if queue.used and not queue.told:
        queue.told = 1
        tell = 1
    fast_unlock(&queue.lock)
    return tell


cdef int relay_news_c(relay_queue_t* queue) noexcept nogil:
    cdef int news = 0
    fast_lock(&queue.lock)
    if queue.told == 1:
        queue.told = 2
        news = 1
    fast_unlock(&queue.lock)
    return news
