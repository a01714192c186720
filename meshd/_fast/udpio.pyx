"""UDP sockets of the packet path; the contract is in udpio.pyi, the C API in udpio.pxd."""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

import os

from meshd._fast.netbytes cimport raw16

cdef extern from "<sys/socket.h>" nogil:
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int n, int flags)
    int recvmmsg(int fd, mmsghdr* messages, unsigned int n, int flags, void* timeout)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* n)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t n)
    int MSG_DONTWAIT
    int MSG_TRUNC
    int MSG_CTRUNC
    int MSG_NOSIGNAL
    int SOL_SOCKET
    int SO_RCVBUF
    int SO_SNDBUF
    int SO_RCVBUFFORCE
    int SO_SNDBUFFORCE

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long n, int timeout_ms)
    short POLLOUT

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t n, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t n)
    int PROT_READ
    int PROT_WRITE
    int MAP_PRIVATE
    int MAP_ANONYMOUS
    void* MAP_FAILED

cdef extern from "udpmsg.h" nogil:
    int SOL_UDP
    int SO_UDP_SEGMENT "UDP_SEGMENT"
    int SO_UDP_GRO "UDP_GRO"
    int UDPMSG_SEND_SPACE
    int UDPMSG_RECEIVE_SPACE
    void udpmsg_set_segment(msghdr* m, uint8_t* control, uint16_t segment)
    uint32_t udpmsg_gro_size(const msghdr* m)
    uint32_t udpmsg_overflows(int fd)

cdef enum:
    SEND_TRIES = 4              # waits for a full socket buffer before a batch is given up
    SEND_WAIT_MS = 10
    TAIL_MIN = 8                # smaller batches go without segmentation where UDP_TAIL is needed
    BIG_DATAGRAM = 4096         # average above which the next read offers one slot only

# Receivers ignore it: shorter than any message.
cdef uint8_t TAIL_BYTE = 7
cdef uint8_t* V4_MAPPED = <uint8_t*> b"\0\0\0\0\0\0\0\0\0\0\xff\xff"


cdef int udp_address_c(udp_address_t* out, const uint8_t* address, uint32_t n, uint16_t port) noexcept nogil:
    """4 or 16 bytes to a socket address; ::ffff:a.b.c.d becomes IPv4. 0 when n is neither."""
    cdef sockaddr_in* v4 = <sockaddr_in*> out.name
    cdef sockaddr_in6* v6 = <sockaddr_in6*> out.name
    memset(out, 0, sizeof(udp_address_t))
    if n == 16 and memcmp(address, V4_MAPPED, 12) == 0:
        address += 12
        n = 4
    if n == 4:
        v4.sin_family = <unsigned short> AF_INET
        v4.sin_port = raw16(port)
        memcpy(&v4.sin_addr, address, 4)
        out.name_bytes = sizeof(sockaddr_in)
        return 1
    if n == 16:
        v6.sin6_family = <unsigned short> AF_INET6
        v6.sin6_port = raw16(port)
        memcpy(&v6.sin6_addr, address, 16)
        out.name_bytes = 28
        return 1
    return 0


cdef uint32_t udp_address_bytes_c(const udp_address_t* address, const uint8_t** out, uint16_t* port) noexcept nogil:
    """The way back: 4, 16 or (neither family) 0 bytes; a mapped IPv4 address comes out as 4."""
    cdef const sockaddr_in* v4 = <const sockaddr_in*> address.name
    cdef const sockaddr_in6* v6 = <const sockaddr_in6*> address.name
    cdef const uint8_t* raw
    if v4.sin_family == AF_INET:
        out[0] = <const uint8_t*> &v4.sin_addr
        port[0] = raw16(v4.sin_port)
        return 4
    if v6.sin6_family == AF_INET6:
        raw = <const uint8_t*> &v6.sin6_addr
        port[0] = raw16(v6.sin6_port)
        if memcmp(raw, V4_MAPPED, 12) == 0:
            out[0] = raw + 12
            return 4
        out[0] = raw
        return 16
    return 0


cdef int udp_probe_c(int fd, int gro) noexcept nogil:
    """Switch UDP_GRO on or off where the kernel has it; the UDP_GSO bit when it can segment."""
    cdef int value = gro
    cdef socklen_t n = sizeof(int)
    setsockopt(fd, SOL_UDP, SO_UDP_GRO, &value, sizeof(int))
    return UDP_GSO if getsockopt(fd, SOL_UDP, SO_UDP_SEGMENT, &value, &n) == 0 else 0


cdef uint32_t udp_overflows_c(int fd) noexcept nogil:
    return udpmsg_overflows(fd)


cdef inline int _wait_writable(int fd, int* attempt, int patient) noexcept nogil:
    """0 when it is time to give up."""
    cdef pollfd waiting
    if not patient or attempt[0] == SEND_TRIES:
        return 0
    attempt[0] += 1
    waiting.fd = fd
    waiting.events = POLLOUT
    poll(&waiting, 1, SEND_WAIT_MS)
    return 1


cdef int _send_one(int fd, const msghdr* message, int patient) noexcept nogil:
    cdef int attempt = 0
    while sendmsg(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
        if errno == EINTR:
            continue
        if (errno == EAGAIN or errno == ENOBUFS) and _wait_writable(fd, &attempt, patient):
            continue
        return errno
    return 0


cdef int _send_plain(int fd, const udp_address_t* to, uint8_t* data, uint32_t n, uint32_t segment,
                     int patient) noexcept nogil:
    """One datagram per segment, UDP_MAX_SEGMENTS per system call; the first error, if any."""
    cdef mmsghdr messages[UDP_MAX_SEGMENTS]
    cdef iovec iov[UDP_MAX_SEGMENTS]
    cdef uint32_t count = 0, done = 0, offset = 0
    cdef int sent, attempt = 0, failure = 0
    memset(messages, 0, sizeof(messages))
    while offset < n and count < UDP_MAX_SEGMENTS:
        iov[count].iov_base = data + offset
        iov[count].iov_len = segment if n - offset > segment else n - offset
        messages[count].msg_hdr.msg_iov = &iov[count]
        messages[count].msg_hdr.msg_iovlen = 1
        messages[count].msg_hdr.msg_name = <void*> to.name
        messages[count].msg_hdr.msg_namelen = to.name_bytes
        offset += segment
        count += 1
    while done < count:
        sent = sendmmsg(fd, &messages[done], count - done, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            done += sent
            continue
        if errno == EINTR:
            continue
        if (errno == EAGAIN or errno == ENOBUFS) and _wait_writable(fd, &attempt, patient):
            continue
        # This one is lost; those behind it may be shorter or find room.
        failure = errno
        done += 1
    return failure


cdef int udp_send_c(int fd, const udp_address_t* to, uint8_t* data, uint32_t n, uint32_t segment,
                    uint32_t* mode, int patient) noexcept nogil:
    """Send n bytes as datagrams of segment bytes, the last one shorter; 0 or the errno of the loss.

    At most UDP_MAX_SEGMENTS and UDP_MAX_BYTES. patient: wait (boundedly) while the socket is full.
    The UDP_GSO bit of mode is cleared for good when the egress device cannot do it.
    """
    cdef msghdr message
    cdef iovec iov[2]
    cdef uint8_t control[64]
    cdef int failure
    memset(&message, 0, sizeof(message))
    if n <= segment:
        iov[0].iov_base = data
        iov[0].iov_len = n
        message.msg_name = <void*> to.name
        message.msg_namelen = to.name_bytes
        message.msg_iov = iov
        message.msg_iovlen = 1
        return _send_one(fd, &message, patient)
    if not mode[0] & UDP_GSO or (mode[0] & UDP_TAIL and n < TAIL_MIN * segment):
        return _send_plain(fd, to, data, n, segment, patient)
    if mode[0] & UDP_TAIL and n % segment == 0 and (n == UDP_MAX_BYTES or n // segment == UDP_MAX_SEGMENTS):
        # No room for the tail: the last one goes apart, and the tail behind the others.
        failure = udp_send_c(fd, to, data, n - segment, segment, mode, patient)
        return udp_send_c(fd, to, data + n - segment, segment, segment, mode, patient) or failure
    iov[0].iov_base = data
    iov[0].iov_len = n
    message.msg_name = <void*> to.name
    message.msg_namelen = to.name_bytes
    message.msg_iov = iov
    message.msg_iovlen = 1
    if mode[0] & UDP_TAIL and n % segment == 0:
        # Linux 7.0 to 7.1.4 corrupts a batch whose segments are all equal.
        iov[1].iov_base = &TAIL_BYTE
        iov[1].iov_len = 1
        message.msg_iovlen = 2
    udpmsg_set_segment(&message, control, <uint16_t> segment)
    failure = _send_one(fd, &message, patient)
    if failure == EIO:
        mode[0] &= ~<uint32_t> UDP_GSO
    elif failure != EINVAL and failure != EMSGSIZE:
        return failure
    # No checksum offload at the egress, or a datagram beyond the path MTU, which only IP can cut.
    return _send_plain(fd, to, data, n, segment, patient)


cdef udp_reader_t* udp_reader_new_c() noexcept nogil:
    cdef udp_reader_t* reader = <udp_reader_t*> calloc(1, sizeof(udp_reader_t))
    cdef void* area
    cdef uint32_t i
    if reader == NULL:
        return NULL
    # Mapped, so that only buffers that were ever filled cost memory.
    area = mmap(NULL, UDP_SLOTS * UDP_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if area == MAP_FAILED:
        free(reader)
        return NULL
    reader.buffers = <uint8_t*> area
    reader.want = UDP_SLOTS
    for i in range(<uint32_t> UDP_SLOTS):
        reader.iov[i].iov_base = reader.buffers + i * UDP_BUFFER
        reader.iov[i].iov_len = UDP_BUFFER
        reader.messages[i].msg_hdr.msg_iov = &reader.iov[i]
        reader.messages[i].msg_hdr.msg_iovlen = 1
        reader.messages[i].msg_hdr.msg_name = reader.from_[i].name
        reader.messages[i].msg_hdr.msg_control = reader.control[i]
    return reader


cdef void udp_reader_free_c(udp_reader_t* reader) noexcept nogil:
    if reader != NULL:
        munmap(reader.buffers, UDP_SLOTS * UDP_BUFFER)
        free(reader)


cdef int udp_receive_c(udp_reader_t* reader, int fd) noexcept nogil:
    """Datagrams now in reader, 0 = none waiting, -errno."""
    cdef uint32_t i, total = 0
    cdef int got
    for i in range(reader.want):
        reader.messages[i].msg_hdr.msg_namelen = 28
        reader.messages[i].msg_hdr.msg_controllen = UDPMSG_RECEIVE_SPACE
        reader.messages[i].msg_hdr.msg_flags = 0
    while True:
        got = recvmmsg(fd, reader.messages, reader.want, MSG_DONTWAIT, NULL)
        if got >= 0:
            break
        if errno == EINTR:
            continue
        return 0 if errno == EAGAIN else -errno
    for i in range(<uint32_t> got):
        total += reader.messages[i].msg_len
        reader.from_[i].name_bytes = reader.messages[i].msg_hdr.msg_namelen
    # Coalesced reads are large: one at a time stays in the cache and gets to the TUN sooner.
    reader.want = 2 if got and total // <uint32_t> got > BIG_DATAGRAM else UDP_SLOTS
    return got


cdef uint32_t udp_segment_c(const udp_reader_t* reader, int i) noexcept nogil:
    """Bytes per datagram of message i; 0 when it was cut short or its size is lost."""
    cdef const mmsghdr* m = &reader.messages[i]
    cdef uint32_t size
    if m.msg_hdr.msg_flags & MSG_TRUNC:
        return 0
    size = udpmsg_gro_size(&m.msg_hdr)
    if size:
        return size
    return 0 if m.msg_hdr.msg_flags & MSG_CTRUNC else (m.msg_len if m.msg_len else 1)


def set_buffers(int fd, int size) -> tuple:
    """Receive and send buffer sizes after asking for size, beyond the system's limits where allowed."""
    cdef int value, forced, plain
    cdef socklen_t n
    cdef list result = []
    for forced, plain in ((SO_RCVBUFFORCE, SO_RCVBUF), (SO_SNDBUFFORCE, SO_SNDBUF)):
        value = size
        if setsockopt(fd, SOL_SOCKET, forced, &value, sizeof(int)) < 0:
            setsockopt(fd, SOL_SOCKET, plain, &value, sizeof(int))
        n = sizeof(int)
        if getsockopt(fd, SOL_SOCKET, plain, &value, &n) < 0:
            raise OSError(errno, os.strerror(errno))
        result.append(value // 2)       # the kernel reports twice what was set
    return tuple(result)


def enable_offload(int fd) -> bool:
    """Switch receive offload on; whether the socket can segment on sending."""
    return udp_probe_c(fd, 1) != 0


def gro_size(list control not None) -> int:
    """The segment size in a list of control messages (level, type, data)."""
    cdef msghdr message
    cdef bytes area = b"".join([
        (16 + len(data)).to_bytes(8, "little") + level.to_bytes(4, "little") + kind.to_bytes(4, "little")
        + data + bytes((8 - len(data) % 8) % 8)
        for level, kind, data in control
    ])
    cdef char* raw = area
    memset(&message, 0, sizeof(message))
    message.msg_control = raw
    message.msg_controllen = len(area)
    return udpmsg_gro_size(&message)


def send(int fd, bytes address not None, uint16_t port, bytes data not None, uint32_t segment,
         *, bint gso=True, bint tail=False) -> tuple:
    """(errno or 0, whether segmentation still works)."""
    cdef udp_address_t to
    cdef uint32_t mode = (UDP_GSO if gso else 0) | (UDP_TAIL if tail else 0)
    cdef int failure
    if not udp_address_c(&to, <const uint8_t*> <char*> address, <uint32_t> len(address), port):
        raise ValueError("address length")
    if not 0 < segment <= 65535 or len(data) > UDP_MAX_BYTES or len(data) > segment * UDP_MAX_SEGMENTS:
        raise ValueError("segment size")
    failure = udp_send_c(fd, &to, <uint8_t*> <char*> data, <uint32_t> len(data), segment, &mode, 0)
    return failure, bool(mode & UDP_GSO)


cdef class Reader:
    cdef udp_reader_t* reader

    def __cinit__(self):
        self.reader = udp_reader_new_c()
        if self.reader == NULL:
            raise MemoryError

    def __dealloc__(self):
        udp_reader_free_c(self.reader)

    def receive(self, int fd) -> list:
        cdef int i, got = udp_receive_c(self.reader, fd)
        cdef uint32_t n, segment, offset, part
        cdef uint16_t port = 0
        cdef const uint8_t* raw
        cdef list out = []
        if got < 0:
            raise OSError(-got, os.strerror(-got))
        for i in range(got):
            n = udp_address_bytes_c(&self.reader.from_[i], &raw, &port)
            address = (<const char*> raw)[:n] if n else b""
            segment = udp_segment_c(self.reader, i)
            offset = 0
            while segment and offset < self.reader.messages[i].msg_len:
                part = min(segment, self.reader.messages[i].msg_len - offset)
                out.append((address, port, (<char*> self.reader.iov[i].iov_base)[offset:offset + part]))
                offset += segment
        return out
