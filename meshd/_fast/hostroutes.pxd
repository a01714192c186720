"""C API of host routes: addresses to small integers, in hash tables that readers use without a lock.

The same contract as lpm.pxd: one writer thread, which publishes with release stores; a table that was outgrown goes
to a retired list and is freed only when every reader has passed a quiescent point.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef extern from "atomic.h" nogil:
    void* load_acquire_ptr(void* const* at)
    void store_release_ptr(void** to, void* value)
    uint64_t load_relaxed_u64(const uint64_t* at)
    void store_relaxed_u64(uint64_t* to, uint64_t value)
    int32_t load_acquire_i32(const int32_t* at)
    void store_release_i32(int32_t* to, int32_t value)

cdef extern from *:
    """
    /* 2^64 / golden ratio (Fibonacci hashing), and another odd constant with well spread bits. */
    #define MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)
    #define MULTIPLIER2 UINT64_C(0xD6E8FEB86659FD93)
    """
    const uint64_t MULTIPLIER
    const uint64_t MULTIPLIER2

cdef enum lpm_status_t:
    LPM_OK = 0              # inserted or removed
    LPM_REPLACED = 1        # it was there; its value is the new one now
    LPM_ABSENT = -1         # nothing to remove
    LPM_INVALID = -2        # family, length or value out of range
    LPM_NO_MEMORY = -3      # nothing changed

cdef enum:
    LPM_NONE = -1           # no value
    HOST_REMOVED = -1               # host6_t.state
    HOST_REMOVED4 = 0xffffffff      # low half of an IPv4 host word

# Memory that readers may still be in; the first member of whatever is retired.
cdef struct retired_t:
    retired_t* next

cdef struct memory_t:
    retired_t* retired
    size_t retired_count
    size_t bytes                    # allocated and not retired
    uint64_t seed                   # of the hashes

# Open addressing, linear probing. An IPv4 slot is one word, address << 32 | value + 1; 0 is empty.
cdef struct hosts4_t:
    retired_t retired
    uint64_t mask
    uint64_t used                   # live and removed slots
    uint32_t seed
    int shift
    uint64_t* slots

# A key is written once per slot and stays until the table is rebuilt: a reader that has seen a state other than empty
# may compare it without further care.
cdef struct host6_t:
    uint64_t hi
    uint64_t lo
    int32_t state                   # 0 empty, HOST_REMOVED, else value + 1; published last
    int32_t reserved

cdef struct hosts6_t:
    retired_t retired
    uint64_t mask
    uint64_t used
    uint64_t seed
    int shift
    host6_t* slots

# One family's host routes.
cdef struct hosts_t:
    void* table                     # hosts4_t* or hosts6_t*, published; NULL while there are none
    size_t live


cdef inline void retire(memory_t* memory, void* piece, size_t n) noexcept nogil:
    cdef retired_t* head = <retired_t*>piece
    head.next = memory.retired
    memory.retired = head
    memory.retired_count += 1
    memory.bytes -= n


cdef inline uint64_t hosts4_start(const hosts4_t* table, uint32_t addr) noexcept nogil:
    return (<uint64_t>(addr ^ table.seed) * MULTIPLIER) >> table.shift


cdef inline int32_t hosts4_find(const hosts4_t* table, uint32_t addr) noexcept nogil:
    cdef uint64_t at = hosts4_start(table, addr), word
    while True:
        word = load_relaxed_u64(&table.slots[at])
        if word == 0:
            return LPM_NONE
        if <uint32_t>(word >> 32) == addr and <uint32_t>word != HOST_REMOVED4:
            return <int32_t>(<uint32_t>word - 1)
        at = (at + 1) & table.mask


cdef inline uint64_t hosts6_start(const hosts6_t* table, uint64_t hi, uint64_t lo) noexcept nogil:
    cdef uint64_t x = (lo ^ table.seed) * MULTIPLIER
    x = ((x ^ (x >> 32)) + hi) * MULTIPLIER2
    return (x ^ (x >> 29)) * MULTIPLIER >> table.shift


cdef inline int32_t hosts6_find(const hosts6_t* table, uint64_t hi, uint64_t lo) noexcept nogil:
    cdef uint64_t at = hosts6_start(table, hi, lo)
    cdef const host6_t* slot
    cdef int32_t state
    while True:
        slot = &table.slots[at]
        state = load_acquire_i32(&slot.state)
        if state == 0:
            return LPM_NONE
        if slot.lo == lo and slot.hi == hi:
            return LPM_NONE if state == HOST_REMOVED else state - 1
        at = (at + 1) & table.mask


# Writer thread; value 0..2^31-2. lpm_status_t.
cdef int hosts4_insert(hosts_t* hosts, memory_t* memory, uint32_t addr, int32_t value) noexcept nogil
cdef int hosts4_remove(hosts_t* hosts, uint32_t addr) noexcept nogil
cdef int hosts6_insert(hosts_t* hosts, memory_t* memory, uint64_t hi, uint64_t lo, int32_t value) noexcept nogil
cdef int hosts6_remove(hosts_t* hosts, uint64_t hi, uint64_t lo) noexcept nogil
