"""When memory that packet threads may be reading can be freed.

A reader makes its tick odd while it works on a batch and even while it sleeps. What the owner took out of sight may be
freed once every reader was seen asleep, or in a later batch than the one it was in at that time.
"""

from libc.stdint cimport uint64_t

from meshd._fast.atomics cimport fast_fence, fast_store64

cdef enum:
    EPOCH_READERS = 20

cdef struct epoch_reader_t:
    uint64_t tick
    uint64_t pad[7]

cdef struct epoch_mark_t:
    uint64_t seen[20]

cdef struct epoch_retired_t:
    epoch_retired_t* next
    epoch_mark_t mark
    void* memory
    void (*release)(void* memory) noexcept nogil

cdef struct epoch_t:
    epoch_reader_t* readers         # on cache lines of their own
    epoch_retired_t* oldest
    epoch_retired_t* newest

# Reader threads.
cdef inline void epoch_enter_c(epoch_reader_t* reader) noexcept nogil:
    fast_store64(&reader.tick, reader.tick + 1)
    fast_fence()

cdef inline void epoch_leave_c(epoch_reader_t* reader) noexcept nogil:
    fast_store64(&reader.tick, reader.tick + 1)

# The owner thread.
cdef int epoch_open_c(epoch_t* epoch) noexcept nogil
cdef void epoch_close_c(epoch_t* epoch) noexcept nogil
cdef void epoch_mark_c(epoch_t* epoch, epoch_mark_t* mark) noexcept nogil
cdef int epoch_passed_c(const epoch_t* epoch, const epoch_mark_t* mark) noexcept nogil
cdef void epoch_wait_c(epoch_t* epoch) noexcept nogil
cdef void epoch_retire_c(epoch_t* epoch, void* memory, void (*release)(void*) noexcept nogil) noexcept nogil
cdef void epoch_reclaim_c(epoch_t* epoch) noexcept nogil
