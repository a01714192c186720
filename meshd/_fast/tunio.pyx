"""TUN devices of Linux; the contract is in tunio.pyi, the C API in tunio.pxd."""

from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOBUFS, ENODEV, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset, strlen

from meshd._fast.coalesce cimport iovec

import os

cdef extern from "<sys/uio.h>" nogil:
    ssize_t writev(int fd, const iovec* pieces, int count)

cdef extern from "<unistd.h>" nogil:
    ssize_t c_read "read"(int fd, void* data, size_t n)

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long n, int timeout_ms)
    short POLLOUT

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from *:
    """
    #include <net/if.h>
    #include <linux/if_tun.h>
    #ifndef TUN_F_USO4
    #define TUN_F_USO4 0x20
    #define TUN_F_USO6 0x40
    #endif
    """
    unsigned long TUNSETIFF
    unsigned long TUNSETOFFLOAD
    unsigned int TUN_F_CSUM
    unsigned int TUN_F_TSO4
    unsigned int TUN_F_TSO6
    unsigned int TUN_F_USO4
    unsigned int TUN_F_USO6
    short IFF_TUN
    short IFF_NO_PI
    short IFF_VNET_HDR
    short IFF_MULTI_QUEUE
    int IFNAMSIZ
    cdef struct ifreq:
        char ifr_name[16]
        short ifr_flags

OFFLOAD_CSUM = TUN_F_CSUM
OFFLOAD_TSO = TUN_F_TSO4 | TUN_F_TSO6
OFFLOAD_USO = TUN_F_USO4 | TUN_F_USO6

cdef enum:
    WRITE_TRIES = 3
    WRITE_WAIT_MS = 2


cdef int tun_read_c(int fd, uint8_t* data, uint32_t n) noexcept nogil:
    cdef ssize_t got
    while True:
        got = c_read(fd, data, n)
        if got > 0:
            return <int> got
        if got == 0:
            return -ENODEV          # a socket in place of a TUN, closed at its other end
        if errno == EINTR:
            continue
        return 0 if errno == EAGAIN else -errno


cdef int tun_write_c(int fd, const iovec* pieces, int count) noexcept nogil:
    cdef pollfd waiting
    cdef int attempt = 0
    while True:
        if writev(fd, pieces, count) >= 0:
            return 0
        if errno == EINTR:
            continue
        if (errno != EAGAIN and errno != ENOBUFS) or attempt == WRITE_TRIES:
            return errno
        attempt += 1
        waiting.fd = fd
        waiting.events = POLLOUT
        poll(&waiting, 1, WRITE_WAIT_MS)


def attach(int fd, str name not None, *, bint vnet_header=True, bint multi_queue=False) -> str:
    cdef ifreq request
    cdef bytes wanted = name.encode()
    cdef short flags = IFF_TUN | IFF_NO_PI
    if len(wanted) >= IFNAMSIZ or b"\0" in wanted:
        raise ValueError(f"interface name {name!r} is longer than {IFNAMSIZ - 1} bytes or has a zero byte")
    if vnet_header:
        flags |= IFF_VNET_HDR
    if multi_queue:
        flags |= IFF_MULTI_QUEUE
    memset(&request, 0, sizeof(request))
    memcpy(request.ifr_name, <char*> wanted, len(wanted))
    request.ifr_flags = flags
    if ioctl(fd, TUNSETIFF, &request) < 0:
        raise OSError(errno, os.strerror(errno), name)
    return request.ifr_name[:strlen(request.ifr_name)].decode()


def set_offload(int fd, unsigned int features) -> bool:
    """Whether the kernel took the whole set."""
    if ioctl(fd, TUNSETOFFLOAD, <unsigned long> features) == 0:
        return True
    if errno == EINVAL:
        return False
    raise OSError(errno, os.strerror(errno))
