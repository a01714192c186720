"""C API of the translation between IPv4 and IPv6 headers (RFC 7915), as far as it needs no memory.

The hop limit is copied, not decreased: the host forwards every packet that is translated here, and counts then.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    IP4_BYTES = 20
    IP6_BYTES = 40
    FRAGMENT_BYTES = 8
    ICMP_BYTES = 8
    NEXT_FRAGMENT = 44
    DONT_FRAGMENT = 0x4000          # of the IPv4 fragment field
    MORE_FRAGMENTS = 0x2000
    OFFSET_MASK = 0x1fff
    IP6_MIN_MTU = 1280              # RFC 8200 5

cdef struct icmp_head_t:            # what becomes of the first 8 bytes of an ICMP error
    uint8_t type
    uint8_t code
    uint32_t rest

# A header of 20 bytes with its checksum. Addresses are as in a packet.
cdef void header4_c(uint8_t* at, uint8_t tos, uint32_t total, uint16_t ident, uint16_t fragment, uint8_t ttl,
                    uint8_t proto, const uint8_t* src, const uint8_t* dst) noexcept nogil
cdef void header6_c(uint8_t* at, uint8_t tclass, uint32_t payload, uint8_t next_header, uint8_t hops,
                    const uint8_t* src, const uint8_t* dst) noexcept nogil

# New type, code and body of an ICMP error of which 8 bytes are there; 0 = it has no counterpart.
# quoted: length of the packet it is about, by its header; mtu: the most the other side may be told.
cdef bint icmp_to_4_c(const uint8_t* message, uint32_t mtu, icmp_head_t* head) noexcept nogil
cdef bint icmp_to_6_c(const uint8_t* message, uint32_t quoted, uint32_t mtu, icmp_head_t* head) noexcept nogil
cdef void icmp_write_c(uint8_t* message, const icmp_head_t* head) noexcept nogil

# The transport header of n bytes, TCP or UDP, gets another port, and its checksum follows it and the addresses, whose
# sums are before and after. partial: the field holds the sum of the pseudo header only.
cdef void retarget_c(uint8_t* transport, uint32_t n, uint8_t proto, uint32_t port_at, uint16_t port, uint64_t before,
                     uint64_t after, bint partial) noexcept nogil

# An ICMP echo of at least 8 bytes: type and identifier; pseudo sums of the sides, 0 for IPv4.
cdef void recast_echo_c(uint8_t* message, uint32_t n, uint8_t type_, uint16_t ident, uint64_t before,
                        uint64_t after) noexcept nogil

# The maximum segment size of a SYN is at most mss.
cdef void clamp_mss_c(uint8_t* tcp, uint32_t n, uint16_t mss, bint partial) noexcept nogil
