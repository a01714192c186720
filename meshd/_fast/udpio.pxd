"""Batches of UDP datagrams: UDP_SEGMENT out, UDP_GRO in."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from meshd._fast.coalesce cimport iovec

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int AF_INET
    int AF_INET6

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr

cdef enum:
    UDP_MAX_SEGMENTS = 64
    UDP_MAX_BYTES = 65507       # payload of the largest IPv4 datagram; IPv6 has 20 more, never needed
    UDP_BUFFER = 65536          # what a coalesced datagram may fill
    UDP_SLOTS = 16              # datagrams per recvmmsg

cdef enum:                      # how a socket sends; bits
    UDP_GSO = 1
    UDP_TAIL = 2                # close a batch of equal segments with a one-byte datagram

cdef struct udp_address_t:
    uint8_t name[28]            # sockaddr_in or sockaddr_in6
    uint32_t name_bytes         # 0 = none

cdef struct udp_reader_t:
    uint8_t* buffers            # UDP_SLOTS times UDP_BUFFER
    mmsghdr messages[16]
    iovec iov[16]
    udp_address_t from_[16]
    uint8_t control[16][128]
    uint32_t want               # slots to offer next time

cdef int udp_address_c(udp_address_t* out, const uint8_t* address, uint32_t n, uint16_t port) noexcept nogil
cdef uint32_t udp_address_bytes_c(const udp_address_t* address, const uint8_t** out, uint16_t* port) noexcept nogil
cdef int udp_probe_c(int fd, int gro) noexcept nogil
cdef uint32_t udp_overflows_c(int fd) noexcept nogil     # datagrams the socket had no room for, since it was made
cdef int udp_send_c(int fd, const udp_address_t* to, uint8_t* data, uint32_t n, uint32_t segment,
                    uint32_t* mode, int patient) noexcept nogil
cdef udp_reader_t* udp_reader_new_c() noexcept nogil
cdef void udp_reader_free_c(udp_reader_t* reader) noexcept nogil
cdef int udp_receive_c(udp_reader_t* reader, int fd) noexcept nogil
cdef uint32_t udp_segment_c(const udp_reader_t* reader, int i) noexcept nogil
