"""Lending of TUN queues between packet threads; the contract is in tunlend.pxd."""
# freethreading: a queue and its context belong to the thread that `lent` says.

from libc.stdint cimport uint32_t, uint64_t

from meshd._fast.atomics cimport fast_load32, fast_loadp, fast_peek64, fast_set64, fast_storep
from meshd._fast.planestate cimport RECEIVER_WORKER, TUN_LENT, TUN_RETURNED, count_c, tun_queue_t

cdef extern from "<unistd.h>" nogil:
    ssize_t c_read "read"(int fd, void* data, size_t n)
    ssize_t c_write "write"(int fd, const void* data, size_t n)

cdef enum:
    WINDOW_NS = 4000000
    MUCH_NS = 1000000           # of work in a window: a second thread pays
    CALM_NS = 100000000         # without that


cdef bint load_much_c(load_t* load, uint64_t begun, uint64_t now) noexcept nogil:
    if begun - load.since >= WINDOW_NS:
        load.since = begun
        load.worked = 0
    load.worked += now - begun
    return load.worked >= MUCH_NS


cdef void tun_busy_c(plane_t* plane, uint32_t queue, uint64_t now) noexcept nogil:
    fast_set64(&plane.tuns[queue].busy_at, now)


cdef inline void _tell(int fd) noexcept nogil:
    cdef uint64_t one = 1
    c_write(fd, &one, 8)


cdef bint tun_lend_c(plane_t* plane, uint32_t queue, outbound_t* out, uint64_t now) noexcept nogil:
    cdef tun_queue_t* tun = &plane.tuns[queue]
    if not fast_load32(&plane.receiving[queue]) or now - fast_peek64(&tun.busy_at) < CALM_NS:
        return False
    count_c(plane, out.worker, TUN_LENT, 1)
    fast_storep(&tun.lent, out)
    _tell(plane.wake_fds[queue])
    return True


cdef bint tun_own_c(plane_t* plane, uint32_t queue) noexcept nogil:
    cdef uint64_t count
    c_read(plane.tuns[queue].wake_fd, &count, 8)
    return fast_loadp(&plane.tuns[queue].lent) == NULL


cdef outbound_t* tun_lent_c(plane_t* plane, uint32_t queue) noexcept nogil:
    return <outbound_t*> fast_loadp(&plane.tuns[queue].lent)


cdef void tun_return_c(plane_t* plane, uint32_t queue) noexcept nogil:
    count_c(plane, RECEIVER_WORKER + queue, TUN_RETURNED, 1)
    fast_storep(&plane.tuns[queue].lent, NULL)
    _tell(plane.tuns[queue].wake_fd)
