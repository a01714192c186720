"""Event rings; the contract is in ring.pyi, the C API in ring.pxd."""
# freethreading: one producer and one consumer per ring; head and tail are published with release stores.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from meshd._fast.atomics cimport (
    fast_add64,
    fast_fence,
    fast_load64,
    fast_peek64,
    fast_store32,
    fast_store64,
    fast_swap32,
)

cdef extern from "<unistd.h>" nogil:
    ssize_t c_write "write"(int fd, const void* data, size_t n)
    ssize_t c_read "read"(int fd, void* data, size_t n)
    int c_close "close"(int fd)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef enum:
    SKIP = 0xFFFF               # kind of the record that fills the end of the buffer


cdef int bell_open_c(doorbell_t* bell) noexcept nogil:
    """The eventfd, or -1."""
    bell.rung = 0
    bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    return bell.fd


cdef void bell_ring_c(doorbell_t* bell) noexcept nogil:
    """Wake the consumer, with one system call per time it fell asleep."""
    cdef uint64_t one = 1
    if fast_swap32(&bell.rung, 1) == 0:
        c_write(bell.fd, &one, 8)


cdef void bell_quiet_c(doorbell_t* bell) noexcept nogil:
    """Before the consumer looks at the rings for the last time: whatever comes later rings again."""
    cdef uint64_t count
    c_read(bell.fd, &count, 8)
    fast_store32(&bell.rung, 0)
    fast_fence()


cdef ring_t* ring_new_c(uint64_t size, doorbell_t* bell) noexcept nogil:
    cdef ring_t* ring
    cdef uint64_t power = 4096
    while power < size:
        power <<= 1
    ring = <ring_t*> calloc(1, sizeof(ring_t))
    if ring == NULL:
        return NULL
    ring.size = power
    ring.bell = bell
    ring.data = <uint8_t*> malloc(power)
    if ring.data == NULL:
        free(ring)
        return NULL
    return ring


cdef void ring_free_c(ring_t* ring) noexcept nogil:
    if ring != NULL:
        free(ring.data)
        free(ring)


cdef inline uint64_t _room(uint64_t data_bytes) noexcept nogil:
    return (sizeof(record_t) + data_bytes + 7) & ~<uint64_t> 7


cdef int ring_put_c(ring_t* ring, const record_t* record, const uint8_t* head, uint32_t head_bytes,
                    const uint8_t* data, uint32_t data_bytes) noexcept nogil:
    """Add a record whose data is head and data in a row; 0 and a counted drop when there is no room."""
    cdef uint64_t at = ring.head
    cdef uint64_t need = _room(<uint64_t> head_bytes + data_bytes)
    cdef uint64_t offset = at & (ring.size - 1)
    cdef uint64_t rest = ring.size - offset
    cdef uint64_t skip = rest if rest < need else 0
    cdef record_t* out
    if at + skip + need - fast_load64(&ring.tail) > ring.size:
        fast_add64(&ring.dropped, 1)
        # The consumer may never have been told: a full ring must not stay asleep.
        bell_ring_c(ring.bell)
        return 0
    if skip:
        # Less than a record header may be left; the consumer knows that such a rest is void.
        if rest >= sizeof(record_t):
            out = <record_t*> (ring.data + offset)
            out.kind = SKIP
        at += skip
        offset = 0
    out = <record_t*> (ring.data + offset)
    out[0] = record[0]
    out.bytes = head_bytes + data_bytes
    if head_bytes:
        memcpy(<uint8_t*> out + sizeof(record_t), head, head_bytes)
    if data_bytes:
        memcpy(<uint8_t*> out + sizeof(record_t) + head_bytes, data, data_bytes)
    fast_store64(&ring.head, at + need)
    fast_fence()
    bell_ring_c(ring.bell)
    return 1


cdef const record_t* ring_peek_c(ring_t* ring) noexcept nogil:
    """The oldest record, valid until released; NULL when the ring is empty."""
    cdef uint64_t head = fast_load64(&ring.head)
    cdef uint64_t offset, rest
    while ring.tail != head:
        offset = ring.tail & (ring.size - 1)
        rest = ring.size - offset
        if rest >= sizeof(record_t) and (<record_t*> (ring.data + offset)).kind != SKIP:
            return <record_t*> (ring.data + offset)
        fast_store64(&ring.tail, ring.tail + rest)
    return NULL


cdef void ring_release_c(ring_t* ring, const record_t* record) noexcept nogil:
    """Give back the space of the record ring_peek_c returned."""
    fast_store64(&ring.tail, ring.tail + _room(record.bytes))


cdef class Ring:
    cdef ring_t* ring
    cdef doorbell_t bell

    def __cinit__(self, uint64_t size):
        self.bell.fd = -1
        if not 1 <= size <= 1 << 30:
            raise ValueError("ring size")
        if bell_open_c(&self.bell) < 0:
            raise OSError("eventfd")
        self.ring = ring_new_c(size, &self.bell)
        if self.ring == NULL:
            raise MemoryError

    def __dealloc__(self):
        ring_free_c(self.ring)
        if self.bell.fd >= 0:
            c_close(self.bell.fd)

    @property
    def event_fd(self) -> int:
        return self.bell.fd

    @property
    def dropped(self) -> int:
        return fast_peek64(&self.ring.dropped)

    def put(self, uint16_t kind, bytes data not None) -> bool:
        cdef record_t record
        if kind == SKIP or len(data) > 1 << 24:
            raise ValueError("record kind or length")
        memset(&record, 0, sizeof(record))
        record.kind = kind
        return ring_put_c(self.ring, &record, NULL, 0, <const uint8_t*> <char*> data, <uint32_t> len(data)) == 1

    def take(self):
        cdef const record_t* record = ring_peek_c(self.ring)
        if record == NULL:
            bell_quiet_c(&self.bell)
            record = ring_peek_c(self.ring)
            if record == NULL:
                return None
            bell_ring_c(&self.bell)
        cdef uint16_t kind = record.kind
        cdef bytes data = (<const char*> record + sizeof(record_t))[:record.bytes]
        ring_release_c(self.ring, record)
        return kind, data
