"""Deferred freeing for lock-free readers; the contract is in epoch.pxd."""
# freethreading: one owner thread; readers touch their own tick only.

from libc.stdlib cimport free, malloc

from meshd._fast.atomics cimport fast_load64

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** out, size_t alignment, size_t n)

cdef extern from "<string.h>" nogil:
    void* memset(void* p, int value, size_t n)

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int microseconds)


cdef int epoch_open_c(epoch_t* epoch) noexcept nogil:
    cdef void* memory = NULL
    epoch.oldest = epoch.newest = NULL
    epoch.readers = NULL
    if posix_memalign(&memory, 64, EPOCH_READERS * sizeof(epoch_reader_t)) != 0:
        return 0
    memset(memory, 0, EPOCH_READERS * sizeof(epoch_reader_t))
    epoch.readers = <epoch_reader_t*> memory
    return 1


cdef void epoch_mark_c(epoch_t* epoch, epoch_mark_t* mark) noexcept nogil:
    """Remember where every reader is now; call after the memory was taken out of sight."""
    cdef int i
    fast_fence()
    for i in range(EPOCH_READERS):
        mark.seen[i] = fast_load64(&epoch.readers[i].tick)


cdef int epoch_passed_c(const epoch_t* epoch, const epoch_mark_t* mark) noexcept nogil:
    """1 when no reader can still be using what was out of sight at the mark."""
    cdef int i
    for i in range(EPOCH_READERS):
        if mark.seen[i] & 1 and fast_load64(&epoch.readers[i].tick) == mark.seen[i]:
            return 0
    return 1


cdef void epoch_wait_c(epoch_t* epoch) noexcept nogil:
    """Block until every reader has left the batch it is in."""
    cdef epoch_mark_t mark
    epoch_mark_c(epoch, &mark)
    while not epoch_passed_c(epoch, &mark):
        usleep(50)


cdef void epoch_retire_c(epoch_t* epoch, void* memory, void (*release)(void*) noexcept nogil) noexcept nogil:
    """Release memory as soon as no reader can hold it; it must be out of sight already."""
    cdef epoch_retired_t* entry
    if memory == NULL:
        return
    entry = <epoch_retired_t*> malloc(sizeof(epoch_retired_t))
    if entry == NULL:
        epoch_wait_c(epoch)
        release(memory)
        return
    entry.next = NULL
    entry.memory = memory
    entry.release = release
    epoch_mark_c(epoch, &entry.mark)
    if epoch.newest != NULL:
        epoch.newest.next = entry
    else:
        epoch.oldest = entry
    epoch.newest = entry
    epoch_reclaim_c(epoch)


cdef void epoch_reclaim_c(epoch_t* epoch) noexcept nogil:
    """Free what became free, oldest first."""
    cdef epoch_retired_t* entry = epoch.oldest
    while entry != NULL and epoch_passed_c(epoch, &entry.mark):
        epoch.oldest = entry.next
        if epoch.oldest == NULL:
            epoch.newest = NULL
        entry.release(entry.memory)
        free(entry)
        entry = epoch.oldest


cdef void epoch_close_c(epoch_t* epoch) noexcept nogil:
    """Free everything; no reader may be left."""
    cdef epoch_retired_t* entry
    while epoch.oldest != NULL:
        entry = epoch.oldest
        epoch.oldest = entry.next
        entry.release(entry.memory)
        free(entry)
    epoch.newest = NULL
    free(epoch.readers)
    epoch.readers = NULL
