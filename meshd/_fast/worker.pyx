"""Loops of the packet threads; the contract is in worker.pxd."""
# freethreading: one loop per thread; what they share is plane_t.

from libc.errno cimport EBADF, EINTR, EINVAL, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from meshd._fast.atomics cimport fast_load32, fast_now, fast_peek64, fast_store32
from meshd._fast.epoch cimport epoch_enter_c, epoch_leave_c, epoch_reader_t
from meshd._fast.inbound cimport inbound_begin_c, inbound_datagrams_c, inbound_flush_c, inbound_rest_c
from meshd._fast.outbound cimport outbound_flush_c, outbound_packet_c, outbound_rest_c
from meshd._fast.planestate cimport (
    IN_SOCKET_ERROR,
    OUT_MALFORMED,
    RECEIVER_WORKER,
    TUN_READS,
    TUN_WRITES,
    UDP_READS,
    count_c,
    plane_t,
)
from meshd._fast.segment cimport VNET_BYTES, vnet_header_t
from meshd._fast.tunio cimport TUN_READ_BYTES, tun_read_c
from meshd._fast.tunlend cimport (
    load_much_c,
    load_t,
    tun_busy_c,
    tun_lend_c,
    tun_lent_c,
    tun_own_c,
    tun_return_c,
)
from meshd._fast.udpio cimport udp_receive_c, udp_segment_c

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int n, int timeout_ms)
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    uint32_t EPOLLIN

cdef extern from "<unistd.h>" nogil:
    ssize_t c_read "read"(int fd, void* data, size_t n)

cdef enum:
    EVENTS = 5
    READS_PER_BATCH = 64        # how long a busy thread goes without letting the owner free memory
    READS_TOGETHER = 8          # and one that has both directions to look after, before it turns to the other


cdef inline void _watch(int epoll, int fd) noexcept nogil:
    cdef epoll_event event
    if fd >= 0:
        memset(&event, 0, sizeof(event))
        event.events = EPOLLIN
        event.data.fd = fd
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)


cdef inline void _unwatch(int epoll, int fd) noexcept nogil:
    cdef epoll_event event
    if fd >= 0:
        epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event)


cdef int _tun_batch(outbound_t* out, int fd, int reads, bint prompt) noexcept nogil:
    """Read and send until the TUN is empty or the batch is full: 1 = there may be more, 0 = empty, -1 = gone.

    prompt: the first packet does not wait for others that could go with it.
    """
    cdef int header = VNET_BYTES if out.plane.vnet else 0
    cdef int got = 0, read
    cdef vnet_header_t none
    memset(&none, 0, sizeof(none))
    epoch_enter_c(&out.plane.epoch.readers[out.worker])
    out.now = fast_now()
    for read in range(reads):
        got = tun_read_c(fd, out.input, TUN_READ_BYTES)
        if got <= 0 and got != -EINVAL:
            break
        count_c(out.plane, out.worker, TUN_READS, 1)
        # EINVAL: the kernel threw a packet away whose offload the virtio-net header cannot tell, as drivers with LRO
        # make them. It does not concern the next.
        if got <= header:
            count_c(out.plane, out.worker, OUT_MALFORMED, 1)
            continue
        outbound_packet_c(out, <vnet_header_t*> out.input if header else &none, out.input + header,
                          <uint32_t> (got - header))
        if prompt and read == 0:
            outbound_flush_c(out)
    outbound_flush_c(out)
    epoch_leave_c(&out.plane.epoch.readers[out.worker])
    return 1 if got > 0 or got == -EINVAL else (0 if got == 0 else -1)


cdef void sender_run_c(outbound_t* out, uint32_t queue, int epoll) noexcept nogil:
    """Carry packets of one TUN queue to the peers, while it is not lent."""
    cdef plane_t* plane = out.plane
    cdef int fd = plane.tuns[queue].fd, wake = plane.tuns[queue].wake_fd
    cdef epoll_event event
    cdef load_t load
    cdef uint64_t begun, now
    cdef int more
    memset(&load, 0, sizeof(load))
    _watch(epoll, fd)
    _watch(epoll, wake)
    _watch(epoll, plane.stop_fd)
    while not fast_load32(&plane.stopping):
        event.data.fd = -1
        if epoll_wait(epoll, &event, 1, -1) < 0 and errno != EINTR:
            break
        if event.data.fd == wake and tun_own_c(plane, queue):
            _watch(epoll, fd)
        if event.data.fd != fd:
            continue
        begun = fast_now()
        more = 1
        while more > 0 and not fast_load32(&plane.stopping):
            more = _tun_batch(out, fd, READS_PER_BATCH, False)
        outbound_rest_c(out)
        now = fast_now()
        if load_much_c(&load, begun, now):
            tun_busy_c(plane, queue, now)
        # When the interface was deleted, nothing will ever come, only the order to stop.
        if more < 0 or tun_lend_c(plane, queue, out, now):
            _unwatch(epoll, fd)


cdef int _udp_batch(inbound_t* inb, udp_reader_t* reader, int fd) noexcept nogil:
    """One read of a socket and what is in it: datagrams read, 0 = none, -errno."""
    cdef int i, got = udp_receive_c(reader, fd)
    if got <= 0:
        return got
    count_c(inb.plane, inb.worker, UDP_READS, 1)
    inbound_begin_c(inb)
    for i in range(got):
        inbound_datagrams_c(inb, <uint8_t*> reader.iov[i].iov_base, reader.messages[i].msg_len,
                            udp_segment_c(reader, i), &reader.from_[i])
    inbound_flush_c(inb)
    return got


cdef void _drain_socket(inbound_t* inb, udp_reader_t* reader, int epoll, int fd, int reads) noexcept nogil:
    cdef epoch_reader_t* ticks = &inb.plane.epoch.readers[inb.worker]
    cdef int got, _read
    for _read in range(reads):
        epoch_enter_c(ticks)
        inb.now = fast_now()
        got = _udp_batch(inb, reader, fd)
        epoch_leave_c(ticks)
        if got < 0:
            count_c(inb.plane, inb.worker, IN_SOCKET_ERROR, 1)
            if got == -EBADF:
                _unwatch(epoll, fd)
        if got <= 0:
            return


cdef void _adopt_sockets(plane_t* plane, uint32_t which, int epoll, int* fds) noexcept nogil:
    cdef uint32_t change = fast_load32(&plane.udp_changes)
    _unwatch(epoll, fds[0])
    _unwatch(epoll, fds[1])
    fds[0] = <int> fast_load32(&plane.udp4[which]) if which < fast_load32(&plane.udp4_count) else -1
    fds[1] = <int> fast_load32(&plane.udp6[which]) if which < fast_load32(&plane.udp6_count) else -1
    _watch(epoll, fds[0])
    _watch(epoll, fds[1])
    fast_store32(&plane.udp_adopted[which], change)


cdef inline uint64_t _written(const inbound_t* inb) noexcept nogil:
    return fast_peek64(&inb.plane.workers[inb.worker].counts[<int> TUN_WRITES])


cdef void receiver_run_c(inbound_t* inb, udp_reader_t* reader, int epoll) noexcept nogil:
    """Carry datagrams of the thread's two sockets to the TUN, and what is not WireGuard data to the loop.

    While it is lent a TUN queue, the packets of that, too.
    """
    cdef plane_t* plane = inb.plane
    cdef uint32_t which = inb.worker - RECEIVER_WORKER
    cdef int wake = plane.wake_fds[which], tun = plane.tuns[which].fd
    cdef epoll_event events[EVENTS]
    cdef outbound_t* out = NULL
    cdef load_t load
    cdef uint64_t begun, now, before, count
    cdef int fds[2]
    cdef int ready, i, fd
    cdef bint outbound
    memset(&load, 0, sizeof(load))
    fds[0] = fds[1] = -1
    _watch(epoll, plane.stop_fd)
    _watch(epoll, wake)
    _adopt_sockets(plane, which, epoll, fds)
    fast_store32(&plane.receiving[which], 1)
    while not fast_load32(&plane.stopping):
        ready = epoll_wait(epoll, events, EVENTS, -1)
        if ready < 0 and errno != EINTR:
            break
        begun = fast_now()
        before = _written(inb)
        outbound = False
        for i in range(ready):
            fd = events[i].data.fd
            if fd == wake:
                c_read(wake, &count, 8)
                if fast_load32(&plane.udp_changes) != fast_load32(&plane.udp_adopted[which]):
                    _adopt_sockets(plane, which, epoll, fds)
                if out == NULL:
                    out = tun_lent_c(plane, which)
                    _watch(epoll, tun if out != NULL else -1)
            elif fd == tun:
                outbound = True
            elif fd == fds[0] or fd == fds[1]:
                _drain_socket(inb, reader, epoll, fd, READS_PER_BATCH if out == NULL else READS_TOGETHER)
        if out != NULL and (outbound or _written(inb) != before):
            if _tun_batch(out, tun, READS_TOGETHER, True) < 0:
                _unwatch(epoll, tun)
            outbound_rest_c(out)
        inbound_rest_c(inb)
        now = fast_now()
        if load_much_c(&load, begun, now):
            tun_busy_c(plane, which, now)
            if out != NULL:
                out = NULL
                _unwatch(epoll, tun)
                tun_return_c(plane, which)
