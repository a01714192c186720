"""Limits by source; the contract is in sourcelimit.pyi."""
# freethreading: a SourceLimit is not locked; one thread uses it at a time.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef extern from "unistd.h" nogil:
    int getentropy(void* buffer, size_t length)

cdef enum:
    HANDSHAKE_NS = 4000000      # 250 a second
    OTHER_NS = 500000           # 2000 a second
    BURST = 1000                # so many at once, of either kind

HANDSHAKES_PER_S = 1000000000 // HANDSHAKE_NS
OTHERS_PER_S = 1000000000 // OTHER_NS
BURST_MESSAGES = BURST
HANDSHAKE = SOURCE_HANDSHAKE
OTHER = SOURCE_OTHER


cdef inline uint64_t _mix(uint64_t value) noexcept nogil:
    value = (value ^ value >> 32) * <uint64_t> 0xD6E8FEB86659FD93
    value = (value ^ value >> 32) * <uint64_t> 0xD6E8FEB86659FD93
    return value ^ value >> 32


cdef source_limit_t* source_limit_new_c() noexcept nogil:
    cdef source_limit_t* table = <source_limit_t*> calloc(1, sizeof(source_limit_t))
    if table != NULL and getentropy(&table.seed, 8) != 0:
        free(table)
        return NULL
    return table


cdef void source_limit_free_c(source_limit_t* table) noexcept nogil:
    free(table)


cdef int source_allow_c(source_limit_t* table, const uint8_t* address, uint32_t bytes_, uint32_t kind,
                        uint64_t now) noexcept nogil:
    cdef uint64_t network = 0, key, paid
    cdef uint64_t interval = HANDSHAKE_NS if kind == SOURCE_HANDSHAKE else OTHER_NS
    cdef uint32_t at
    memcpy(&network, address, 4 if bytes_ == 4 else 8)
    key = _mix(network ^ table.seed) ^ (kind * 2 + (bytes_ == 4))
    key = _mix(key) | 1
    at = <uint32_t> (key >> 32 & (SOURCE_SETS - 1)) * 2
    if table.keys[at] != key:
        if table.keys[at + 1] == key or table.due[at + 1] < table.due[at]:
            at += 1
        if table.keys[at] != key:       # the place of whoever was quieter
            table.keys[at] = key
            table.due[at] = 0
    paid = table.due[at] if table.due[at] > now else now
    if paid - now > (BURST - 1) * interval:
        return 0
    table.due[at] = paid + interval
    return 1


cdef class SourceLimit:
    def __init__(self, uint64_t seed):
        self.c.seed = seed

    def allow(self, const unsigned char[::1] address, uint32_t kind, uint64_t now, /):
        if address.shape[0] != 4 and address.shape[0] != 16:
            raise ValueError("an address has 4 or 16 bytes")
        if kind != SOURCE_HANDSHAKE and kind != SOURCE_OTHER:
            raise ValueError("no such kind")
        return source_allow_c(&self.c, &address[0], <uint32_t> address.shape[0], kind, now) != 0
