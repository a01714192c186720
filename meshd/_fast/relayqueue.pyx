"""Relay queues; the contract is in relayqueue.pxd."""
# freethreading: guarded by the queue's lock.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from meshd._fast.atomics cimport fast_lock, fast_unlock
from meshd._fast.derpframes cimport (
    DERP_BUNDLE_BYTES,
    DERP_BUNDLE_HEADER_BYTES,
    DERP_BUNDLE_TYPE,
    DERP_HEADER_BYTES,
    DERP_SEND_PACKET,
)
from meshd._fast.netbytes cimport get32be, put16be, put32be


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


cdef inline uint32_t _per_frame(uint32_t n, uint32_t segment, bint bundle) noexcept nogil:
    """How many bytes of the datagrams go into each frame: bundles of about equal length, or one datagram."""
    cdef uint32_t most = DERP_BUNDLE_BYTES // segment, count = (n + segment - 1) // segment, frames
    if not bundle or most < 2 or count < 2:
        return segment
    frames = (count + most - 1) // most
    return (count + frames - 1) // frames * segment


cdef inline uint8_t* _room(relay_queue_t* queue, uint32_t n) noexcept nogil:
    """Where the next n bytes go, NULL when the queue is full."""
    if queue.used + n > RELAY_QUEUE_BYTES:
        return NULL
    if queue.start + queue.used + n > RELAY_QUEUE_BYTES:
        memmove(queue.data, queue.data + queue.start, queue.used)
        queue.start = 0
    return queue.data + queue.start + queue.used


cdef int relay_push_c(relay_queue_t* queue, const uint8_t* node_key, const uint8_t* data, uint32_t n,
                      uint32_t segment, bint bundle, uint32_t* lost) noexcept nogil:
    """Queue n bytes as datagrams of segment bytes, bundled or each in a frame of its own.

    1 when the loop must be told; lost counts datagrams without room.
    """
    cdef uint32_t offset = 0, part, header, each = _per_frame(n, segment, bundle)
    cdef uint8_t* out
    cdef int tell = 0
    fast_lock(&queue.lock)
    while offset < n:
        part = each if n - offset > each else n - offset
        header = DERP_BUNDLE_HEADER_BYTES if part > segment else 0
        out = _room(queue, RELAY_FRAME_HEADER + header + part)
        if out == NULL:
            lost[0] += (part + segment - 1) // segment
        else:
            out[0] = DERP_SEND_PACKET
            put32be(out + 1, 32 + header + part)
            memcpy(out + 5, node_key, 32)
            if header:
                out[RELAY_FRAME_HEADER] = DERP_BUNDLE_TYPE
                out[RELAY_FRAME_HEADER + 1] = 0
                put16be(out + RELAY_FRAME_HEADER + 2, <uint16_t> segment)
            memcpy(out + RELAY_FRAME_HEADER + header, data + offset, part)
            queue.used += RELAY_FRAME_HEADER + header + part
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


cdef uint32_t relay_ready_c(relay_queue_t* queue, uint32_t limit) noexcept nogil:
    cdef const uint8_t* at
    cdef uint32_t n = 0, frame
    fast_lock(&queue.lock)
    if queue.used <= limit:
        n = queue.used
    else:
        at = queue.data + queue.start
        while True:
            frame = DERP_HEADER_BYTES + get32be(at + n + 1)
            if n and n + frame > limit:
                break
            n += frame
    fast_unlock(&queue.lock)
    return n


cdef int relay_take_c(relay_queue_t* queue, uint8_t* frames, uint32_t n, bint goes_on) noexcept nogil:
    cdef int ring = 0
    fast_lock(&queue.lock)
    memcpy(frames, queue.data + queue.start, n)
    queue.used -= n
    queue.start = queue.start + n if queue.used else 0
    if queue.used == 0:
        queue.told = 0
    elif goes_on:
        queue.told = 2
    else:
        queue.told = ring = 1
    fast_unlock(&queue.lock)
    return ring
