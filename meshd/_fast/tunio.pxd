"""Reads and writes of packets on a TUN file descriptor."""

from libc.stdint cimport uint8_t, uint32_t

from meshd._fast.coalesce cimport iovec

cdef enum:
    TUN_READ_BYTES = 65536 + 64     # one super packet with its virtio-net header

# Bytes read, 0 = nothing there now, -EINVAL = a packet was lost, other -errno = the device is gone or down.
cdef int tun_read_c(int fd, uint8_t* data, uint32_t n) noexcept nogil
# 0 = written, else the errno.
cdef int tun_write_c(int fd, const iovec* pieces, int count) noexcept nogil
