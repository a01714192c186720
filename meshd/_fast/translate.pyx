"""Translation between IPv4 and IPv6 headers; the contract is in translate.pxd."""
# freethreading: no state.

from libc.string cimport memcpy

from meshd._fast.netbytes cimport get16be, get16raw, get32be, put16be, put16raw, put32be, raw16
from meshd._fast.packet cimport PROTO_TCP, PROTO_UDP, fold_c, sum_c, update_checksum_c

cdef enum:
    UNREACHABLE4 = 3
    EXPIRED4 = 11
    PARAMETER4 = 12
    UNREACHABLE6 = 1
    TOO_BIG6 = 2
    EXPIRED6 = 3
    PARAMETER6 = 4
    IP4_MIN_MTU = 68
    NOWHERE = 255                   # a field that the other protocol does not have
    OPTION_END = 0
    OPTION_NOP = 1
    OPTION_MSS = 2

# RFC 1191 7.1, for routers that do not say what fits.
cdef const uint16_t* PLATEAUS = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68]


cdef void header4_c(uint8_t* at, uint8_t tos, uint32_t total, uint16_t ident, uint16_t fragment, uint8_t ttl,
                    uint8_t proto, const uint8_t* src, const uint8_t* dst) noexcept nogil:
    at[0] = 0x45
    at[1] = tos
    put16be(at + 2, <uint16_t> total)
    put16be(at + 4, ident)
    put16be(at + 6, fragment)
    at[8] = ttl
    at[9] = proto
    at[10] = at[11] = 0
    memcpy(at + 12, src, 4)
    memcpy(at + 16, dst, 4)
    put16raw(at + 10, <uint16_t> ~fold_c(sum_c(at, IP4_BYTES, 0)))


cdef void header6_c(uint8_t* at, uint8_t tclass, uint32_t payload, uint8_t next_header, uint8_t hops,
                    const uint8_t* src, const uint8_t* dst) noexcept nogil:
    put32be(at, <uint32_t> 6 << 28 | <uint32_t> tclass << 20)
    put16be(at + 4, <uint16_t> payload)
    at[6] = next_header
    at[7] = hops
    memcpy(at + 8, src, 16)
    memcpy(at + 24, dst, 16)


# -- ICMP errors


cdef inline uint8_t _field4(uint32_t pointer) noexcept nogil:
    """Where the IPv4 header has what an IPv6 header has at the pointer (RFC 7915 figure 6)."""
    if pointer <= 1:
        return <uint8_t> pointer
    if pointer == 4 or pointer == 5:
        return 2
    if pointer == 6:
        return 9
    if pointer == 7:
        return 8
    if 8 <= pointer < 24:
        return 12
    return 16 if 24 <= pointer < 40 else NOWHERE


cdef inline uint8_t _field6(uint8_t pointer) noexcept nogil:
    """The other way round (RFC 7915 figure 3)."""
    if pointer <= 1:
        return pointer
    if pointer == 2 or pointer == 3:
        return 4
    if pointer == 8:
        return 7
    if pointer == 9:
        return 6
    if 12 <= pointer < 16:
        return 8
    return 24 if 16 <= pointer < 20 else NOWHERE


cdef bint icmp_to_4_c(const uint8_t* message, uint32_t mtu, icmp_head_t* head) noexcept nogil:
    cdef uint8_t kind = message[0], code = message[1], field
    cdef uint32_t rest = get32be(message + 4)
    head.type = UNREACHABLE4
    head.rest = 0
    if kind == UNREACHABLE6:
        if code > 4:
            return False
        head.code = 3 if code == 4 else 10 if code == 1 else 1
    elif kind == TOO_BIG6:
        head.code = 4
        rest = rest - (IP6_BYTES - IP4_BYTES) if rest > IP6_BYTES - IP4_BYTES else 0
        head.rest = min(max(rest, <uint32_t> IP4_MIN_MTU), mtu)
    elif kind == EXPIRED6 and code <= 1:
        head.type = EXPIRED4
        head.code = code
    elif kind == PARAMETER6 and code == 1:
        head.code = 2
    elif kind == PARAMETER6 and code == 0:
        field = _field4(rest)
        head.type = PARAMETER4
        head.code = 0
        head.rest = <uint32_t> field << 24
        return field != NOWHERE
    else:
        return False
    return True


cdef inline uint32_t _plateau(uint32_t quoted) noexcept nogil:
    cdef uint32_t i
    for i in range(11):
        if PLATEAUS[i] < quoted:
            return PLATEAUS[i]
    return IP4_MIN_MTU


cdef bint icmp_to_6_c(const uint8_t* message, uint32_t quoted, uint32_t mtu, icmp_head_t* head) noexcept nogil:
    cdef uint8_t kind = message[0], code = message[1], field
    cdef uint32_t size
    head.type = UNREACHABLE6
    head.code = 0
    head.rest = 0
    if kind == UNREACHABLE4:
        if code == 2:
            head.type = PARAMETER6
            head.code = 1
            head.rest = 6           # the next header
        elif code == 3:
            head.code = 4
        elif code == 4:
            size = get16be(message + 6)
            if size == 0:
                size = _plateau(quoted)
            head.type = TOO_BIG6
            head.rest = min(max(size + IP6_BYTES - IP4_BYTES, <uint32_t> IP6_MIN_MTU), mtu)
        elif code == 9 or code == 10 or code == 13 or code == 15:
            head.code = 1
        elif code == 14 or code > 15:
            return False
    elif kind == EXPIRED4 and code <= 1:
        head.type = EXPIRED6
        head.code = code
    elif kind == PARAMETER4 and (code == 0 or code == 2):
        field = _field6(message[4])
        head.type = PARAMETER6
        head.rest = field
        return field != NOWHERE
    else:
        return False
    return True


cdef void icmp_write_c(uint8_t* message, const icmp_head_t* head) noexcept nogil:
    message[0] = head.type
    message[1] = head.code
    message[2] = message[3] = 0
    put32be(message + 4, head.rest)


# -- transport headers


cdef void retarget_c(uint8_t* transport, uint32_t n, uint8_t proto, uint32_t port_at, uint16_t port, uint64_t before,
                     uint64_t after, bint partial) noexcept nogil:
    cdef uint32_t at = 16 if proto == PROTO_TCP else 6
    cdef uint16_t check
    if not partial:                 # else the ports are still to be summed
        before += get16raw(transport + port_at)
        after += raw16(port)
    put16be(transport + port_at, port)
    if at + 2 > n:
        return                      # a quoted header is cut off before it
    check = get16raw(transport + at)
    if partial:
        put16raw(transport + at, <uint16_t> ~update_checksum_c(<uint16_t> ~check, before, after))
    elif check or proto != PROTO_UDP:
        check = update_checksum_c(check, before, after)
        put16raw(transport + at, check if check or proto != PROTO_UDP else 0xFFFF)


cdef void recast_echo_c(uint8_t* message, uint32_t n, uint8_t type_, uint16_t ident, uint64_t before,
                        uint64_t after) noexcept nogil:
    before += <uint64_t> get16raw(message) + get16raw(message + 4)
    message[0] = type_
    put16be(message + 4, ident)
    after += <uint64_t> get16raw(message) + get16raw(message + 4)
    put16raw(message + 2, update_checksum_c(get16raw(message + 2), before, after))


cdef void clamp_mss_c(uint8_t* tcp, uint32_t n, uint16_t mss, bint partial) noexcept nogil:
    cdef uint32_t end = (tcp[12] >> 4) * 4, at = 20
    cdef uint8_t odd
    cdef uint16_t was
    if end > n:
        return
    while at + 4 <= end and tcp[at] != OPTION_END:
        if tcp[at] == OPTION_NOP:
            at += 1
            continue
        if tcp[at] == OPTION_MSS:
            if tcp[at + 1] != 4 or get16be(tcp + at + 2) <= mss:
                return
            odd = at & 1            # in the sum its bytes are the other way round then
            was = raw16(get16be(tcp + at + 2))
            put16be(tcp + at + 2, mss)
            mss = raw16(mss)
            if odd:
                was = <uint16_t> (was << 8 | was >> 8)
                mss = <uint16_t> (mss << 8 | mss >> 8)
            if not partial:
                put16raw(tcp + 16, update_checksum_c(get16raw(tcp + 16), was, mss))
            return
        if tcp[at + 1] < 2:
            return
        at += tcp[at + 1]
