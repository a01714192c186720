"""C API of the IP packet parser and the Internet checksum."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum fast_status_t:
    FAST_OK = 0
    FAST_DROP_EMPTY = 1        # no bytes at all (a WireGuard keepalive)
    FAST_DROP_SHORT = 2        # less than an IP header
    FAST_DROP_VERSION = 3      # neither IPv4 nor IPv6
    FAST_DROP_HEADER = 4       # IPv4 header length below 20 or beyond the total length
    FAST_DROP_TRUNCATED = 5    # the header's total length exceeds the buffer

cdef enum:
    PROTO_UNKNOWN = 0          # the packet parsed as IP, but its transport header cannot be trusted
    PROTO_ICMP4 = 1
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_ICMP6 = 58
    PROTO_TSMP = 99
    PROTO_SCTP = 132
    PROTO_FRAGMENT = 255       # a later fragment: no transport header

cdef enum:
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_ACK = 0x10

cdef struct packet_info_t:
    uint8_t version            # 4 or 6
    uint8_t proto              # IP protocol, PROTO_UNKNOWN or PROTO_FRAGMENT
    uint8_t tcp_flags
    uint8_t icmp_type
    uint16_t l4_offset
    uint32_t total_bytes       # by the IP header; never more than the buffer
    uint16_t src_port          # host order
    uint16_t dst_port
    uint16_t icmp_id           # of echo requests and replies, else 0
    uint8_t icmp_code
    const uint8_t *src         # into the packet, 4 or 16 bytes
    const uint8_t *dst

# Parses the IP and transport header of one packet. On a status other than FAST_OK only `version` is set.
cdef int parse_c(const uint8_t* data, size_t length, packet_info_t* info) noexcept nogil

# Adds n bytes to an unfolded ones-complement sum. Only the last piece of a message may have an odd length.
cdef uint64_t sum_c(const uint8_t* data, size_t n, uint64_t initial) noexcept nogil

# The 16-bit sum, not complemented; stored natively it is in network order.
cdef uint16_t fold_c(uint64_t sum) noexcept nogil

# Sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1), to be passed to sum_c as `initial`.
cdef uint64_t pseudo_sum_c(int version, const uint8_t* src, const uint8_t* dst, uint8_t proto,
                           uint32_t l4_bytes) noexcept nogil

# RFC 1624 eqn. 3: the new checksum field after words summing to `old_sum` became words summing to `new_sum`.
# All three are as they lie in memory.
cdef uint16_t update_checksum_c(uint16_t check, uint64_t old_sum, uint64_t new_sum) noexcept nogil
