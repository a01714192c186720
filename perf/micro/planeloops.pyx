"""C loops around segmentation, merging and rings; each gives the seconds that `loops` calls took."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from meshd._fast.coalesce cimport (
    GRO_TCP,
    GRO_UDP,
    gro_add_c,
    gro_finish_c,
    gro_free_c,
    gro_new_c,
    gro_reset_c,
    gro_t,
)
from meshd._fast.ring cimport (
    doorbell_t,
    record_t,
    ring_free_c,
    ring_new_c,
    ring_peek_c,
    ring_put_c,
    ring_release_c,
    ring_t,
)
from meshd._fast.segment cimport SEGMENT_OK, VNET_BYTES, emit_c, plan_c, segment_plan_t, vnet_header_t

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* at)
    int CLOCK_MONOTONIC

# Results end here, so that no loop is optimised away.
cdef volatile uint64_t sink = 0


cdef double now() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


def split(long loops, const uint8_t[::1] vnet_header, const uint8_t[::1] packet):
    """Cuts one super packet into its pieces."""
    global sink
    cdef vnet_header_t header
    cdef segment_plan_t plan
    cdef uint8_t out[65536]
    cdef uint64_t total = 0
    cdef uint32_t k
    cdef long i
    cdef double start
    memcpy(&header, &vnet_header[0], VNET_BYTES)
    start = now()
    for i in range(loops):
        if plan_c(&plan, &header, &packet[0], packet.shape[0]) != SEGMENT_OK:
            raise ValueError("malformed super packet")
        for k in range(plan.count):
            total += emit_c(&plan, k, out)
    sink = total
    return now() - start


def merge(long loops, packets, uint32_t expected):
    """Merges a batch of packets of one flow into `expected` items and completes their headers."""
    global sink
    cdef const uint8_t* at[128]
    cdef uint32_t length[128]
    cdef list kept = [bytes(packet) for packet in packets]
    cdef uint32_t n = len(kept), k
    cdef uint64_t total = 0
    cdef gro_t* gro = gro_new_c()
    cdef long i
    cdef double start
    if gro == NULL:
        raise MemoryError
    if n > 128:
        raise ValueError("at most 128 packets")
    gro.features = GRO_TCP | GRO_UDP
    for k in range(n):
        at[k] = <const uint8_t*> <const char*> kept[k]
        length[k] = len(kept[k])
    start = now()
    for i in range(loops):
        gro_reset_c(gro)
        for k in range(n):
            gro_add_c(gro, at[k], length[k])
        for k in range(gro.count):
            total += gro_finish_c(&gro.items[k])
    start = now() - start
    sink = total
    k = gro.count
    gro_free_c(gro)
    if loops and k != expected:
        raise ValueError(f"merged into {k} items")
    return start


def put_take(long loops, const uint8_t[::1] data):
    """Puts one record and takes it out again; the doorbell stays rung, as under load."""
    global sink
    cdef doorbell_t bell
    cdef record_t record
    cdef const record_t* got
    cdef ring_t* ring
    cdef uint64_t total = 0
    cdef long i
    cdef double start
    bell.fd = -1
    bell.rung = 1
    ring = ring_new_c(1 << 16, &bell)
    if ring == NULL:
        raise MemoryError
    memset(&record, 0, sizeof(record))
    record.kind = 1
    start = now()
    for i in range(loops):
        ring_put_c(ring, &record, NULL, 0, &data[0], <uint32_t> data.shape[0])
        got = ring_peek_c(ring)
        total += got.bytes
        ring_release_c(ring, got)
    start = now() - start
    ring_free_c(ring)
    if total != <uint64_t> loops * <uint64_t> data.shape[0]:
        raise ValueError("records were lost")
    sink = total
    return start
