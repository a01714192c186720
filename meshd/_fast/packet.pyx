"""Parsing of IP packets and the Internet checksum; the contract is in packet.pyi."""
# freethreading: no shared state.

from libc.string cimport memset

cdef extern from "address.h" nogil:
    uint16_t load_be16(const uint8_t* p)

cdef extern from "checksum.h" nogil:
    uint64_t checksum_sum(const uint8_t* data, size_t n, uint64_t sum)
    uint64_t checksum_add(uint64_t sum, uint64_t word)
    uint16_t checksum_fold(uint64_t sum)

cdef extern from *:
    """
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define to_network16(v) __builtin_bswap16(v)
    #define to_network32(v) __builtin_bswap32(v)
    #else
    #define to_network16(v) (v)
    #define to_network32(v) (v)
    #endif
    """
    uint16_t to_network16(uint16_t v) noexcept nogil
    uint32_t to_network32(uint32_t v) noexcept nogil

cdef enum:
    IP4_HEADER = 20
    IP6_HEADER = 40
    MORE_FRAGMENTS = 0x2000
    OFFSET_MASK = 0x1fff
    MIN_FRAGMENT_BLOCKS = 10    # a smaller offset could rewrite the transport header (RFC 1858)
    MIN_FIRST_FRAGMENT = 10     # bytes of transport data the first fragment must carry
    NEXT_FRAGMENT = 44
    FRAGMENT_HEADER = 8


cdef inline void parse_transport(const uint8_t* l4, uint32_t n, packet_info_t* info) noexcept nogil:
    """Ports, flags and ICMP type; the protocol becomes unknown when its header does not fit into n bytes."""
    cdef uint8_t proto = info.proto
    if proto == PROTO_TCP:
        if n < 20:
            info.proto = PROTO_UNKNOWN
            return
        info.src_port = load_be16(l4)
        info.dst_port = load_be16(l4 + 2)
        info.tcp_flags = l4[13]
    elif proto == PROTO_UDP or proto == PROTO_SCTP:
        if n < <uint32_t>(8 if proto == PROTO_UDP else 12):
            info.proto = PROTO_UNKNOWN
            return
        info.src_port = load_be16(l4)
        info.dst_port = load_be16(l4 + 2)
    elif (proto == PROTO_ICMP4 and info.version == 4) or (proto == PROTO_ICMP6 and info.version == 6):
        if n < 4:
            info.proto = PROTO_UNKNOWN
            return
        info.icmp_type = l4[0]
        info.icmp_code = l4[1]
        if n >= 8 and (
            (info.version == 4 and (l4[0] == 8 or l4[0] == 0)) or (info.version == 6 and (l4[0] == 128 or l4[0] == 129))
        ):
            info.icmp_id = load_be16(l4 + 4)
    elif proto == PROTO_FRAGMENT:
        # 255 is reserved (IANA); here it means "later fragment", which this packet is not.
        info.proto = PROTO_UNKNOWN


cdef inline void parse_fragment6(const uint8_t* header, uint32_t n, packet_info_t* info) noexcept nogil:
    """What follows the IPv6 header is a fragment header (RFC 8200 4.5) and its part of the packet."""
    cdef uint32_t blocks, rest
    info.proto = PROTO_UNKNOWN
    if n < FRAGMENT_HEADER:
        return
    blocks = load_be16(header + 2) >> 3
    rest = n - FRAGMENT_HEADER
    info.l4_offset += FRAGMENT_HEADER
    if blocks:
        if blocks >= MIN_FRAGMENT_BLOCKS:
            info.proto = PROTO_FRAGMENT
        return
    if header[3] & 1 and rest < MIN_FIRST_FRAGMENT:
        return
    # Messages between nodes never come in parts.
    if header[0] != PROTO_TSMP:
        info.proto = header[0]
        parse_transport(header + FRAGMENT_HEADER, rest, info)


cdef int parse_c(const uint8_t* data, size_t length, packet_info_t* info) noexcept nogil:
    cdef uint32_t header, total, fragment
    memset(info, 0, sizeof(packet_info_t))
    if length == 0:
        return FAST_DROP_EMPTY
    info.version = data[0] >> 4
    if info.version == 4:
        if length < IP4_HEADER:
            return FAST_DROP_SHORT
        total = load_be16(data + 2)
        header = (data[0] & 15) << 2
        if total > length:
            return FAST_DROP_TRUNCATED
        if header < IP4_HEADER or header > total:
            return FAST_DROP_HEADER
        info.total_bytes = total
        info.l4_offset = <uint16_t>header
        info.src = data + 12
        info.dst = data + 16
        info.proto = data[9]
        fragment = load_be16(data + 6)
        if fragment & OFFSET_MASK:
            info.proto = PROTO_UNKNOWN if (fragment & OFFSET_MASK) < MIN_FRAGMENT_BLOCKS else PROTO_FRAGMENT
            return FAST_OK
        # As over IPv6: too short a first part, and messages between nodes.
        if fragment & MORE_FRAGMENTS and (total - header < MIN_FIRST_FRAGMENT or info.proto == PROTO_TSMP):
            info.proto = PROTO_UNKNOWN
            return FAST_OK
        parse_transport(data + header, total - header, info)
        return FAST_OK
    if info.version == 6:
        if length < IP6_HEADER:
            return FAST_DROP_SHORT
        total = <uint32_t>load_be16(data + 4) + IP6_HEADER
        if total > length:
            return FAST_DROP_TRUNCATED
        info.total_bytes = total
        info.l4_offset = IP6_HEADER
        info.src = data + 8
        info.dst = data + 24
        info.proto = data[6]
        if info.proto == NEXT_FRAGMENT:
            parse_fragment6(data + IP6_HEADER, total - IP6_HEADER, info)
        else:
            parse_transport(data + IP6_HEADER, total - IP6_HEADER, info)
        return FAST_OK
    return FAST_DROP_SHORT if length < IP4_HEADER else FAST_DROP_VERSION


cdef uint64_t sum_c(const uint8_t* data, size_t n, uint64_t initial) noexcept nogil:
    return checksum_sum(data, n, initial)


cdef uint16_t fold_c(uint64_t sum) noexcept nogil:
    return checksum_fold(sum)


cdef uint64_t pseudo_sum_c(int version, const uint8_t* src, const uint8_t* dst, uint8_t proto,
                           uint32_t l4_bytes) noexcept nogil:
    cdef size_t n = 4 if version == 4 else 16
    cdef uint64_t total = checksum_sum(src, n, 0)
    total = checksum_sum(dst, n, total)
    total = checksum_add(total, to_network32(l4_bytes))
    return checksum_add(total, to_network16(proto))


cdef uint16_t update_checksum_c(uint16_t check, uint64_t old_sum, uint64_t new_sum) noexcept nogil:
    cdef uint64_t total = <uint16_t>~check
    total += <uint16_t>~checksum_fold(old_sum)
    total += checksum_fold(new_sum)
    return <uint16_t>~checksum_fold(total)


STATUS_NAMES = ("ok", "empty", "short", "version", "header", "truncated")


cdef class PacketInfo:
    """The headers of one IP packet."""

    cdef readonly int version
    cdef readonly int proto
    cdef readonly int tcp_flags
    cdef readonly int icmp_type
    cdef readonly int icmp_code
    cdef readonly int icmp_id
    cdef readonly int l4_offset
    cdef readonly int total_bytes
    cdef readonly int src_port
    cdef readonly int dst_port
    cdef readonly bytes src
    cdef readonly bytes dst

    def __repr__(self):
        return (f"PacketInfo(version={self.version}, proto={self.proto}, src={self.src.hex()}:{self.src_port}, "
                f"dst={self.dst.hex()}:{self.dst_port}, total_bytes={self.total_bytes})")


def parse(const uint8_t[::1] data not None, /):
    """The headers of one IP packet; ValueError names the reason when it is malformed."""
    cdef packet_info_t info
    cdef int status = parse_c(&data[0] if data.shape[0] else NULL, data.shape[0], &info)
    if status != FAST_OK:
        raise ValueError(f"malformed IP packet: {STATUS_NAMES[status]}")
    cdef PacketInfo out = PacketInfo.__new__(PacketInfo)
    cdef int n = 4 if info.version == 4 else 16
    out.version = info.version
    out.proto = info.proto
    out.tcp_flags = info.tcp_flags
    out.icmp_type = info.icmp_type
    out.icmp_code = info.icmp_code
    out.icmp_id = info.icmp_id
    out.l4_offset = info.l4_offset
    out.total_bytes = info.total_bytes
    out.src_port = info.src_port
    out.dst_port = info.dst_port
    out.src = info.src[:n]
    out.dst = info.dst[:n]
    return out


def checksum(const uint8_t[::1] data not None, initial=0, /):
    """The Internet checksum of data as the big-endian number to put into the header."""
    if not 0 <= initial <= 0xffff:
        raise ValueError("initial must be a 16-bit number")
    cdef uint64_t start = to_network16(<uint16_t>initial)
    cdef uint64_t total = checksum_sum(&data[0], data.shape[0], start) if data.shape[0] else start
    return to_network16(<uint16_t>~checksum_fold(total))


def transport_checksum(const uint8_t[::1] packet not None, /):
    """The checksum over pseudo header and payload of a whole IP packet, its own field included as it stands."""
    cdef packet_info_t info
    cdef int status = parse_c(&packet[0] if packet.shape[0] else NULL, packet.shape[0], &info)
    if status != FAST_OK:
        raise ValueError(f"malformed IP packet: {STATUS_NAMES[status]}")
    cdef uint32_t n = info.total_bytes - info.l4_offset
    cdef uint64_t total = pseudo_sum_c(info.version, info.src, info.dst, info.proto, n)
    total = checksum_sum(&packet[0] + info.l4_offset, n, total)
    return to_network16(<uint16_t>~checksum_fold(total))


def update_checksum(check, const uint8_t[::1] old not None, const uint8_t[::1] new not None, /):
    """The checksum field after the even-length bytes `old` of the covered data became `new`."""
    if not 0 <= check <= 0xffff:
        raise ValueError("check must be a 16-bit number")
    if old.shape[0] & 1 or new.shape[0] & 1:
        raise ValueError("replaced bytes must be whole 16-bit words")
    cdef uint64_t before = checksum_sum(&old[0], old.shape[0], 0) if old.shape[0] else 0
    cdef uint64_t after = checksum_sum(&new[0], new.shape[0], 0) if new.shape[0] else 0
    return to_network16(update_checksum_c(to_network16(<uint16_t>check), before, after))
