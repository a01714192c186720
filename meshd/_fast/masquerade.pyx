"""Address masquerading; the contract is in masquerade.pyi, the C contract in masquerade.pxd."""
# freethreading: values that do not change.

from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcmp, memcpy

from meshd._fast.netbytes cimport get16raw, put16raw
from meshd._fast.packet cimport FAST_OK, PROTO_ICMP6, PROTO_TCP, PROTO_UDP, parse_c, sum_c, update_checksum_c


cdef inline uint32_t _checksum_at(const packet_info_t* info) noexcept nogil:
    """Where the checksum stands that covers the addresses; 0 for a packet that has none."""
    if info.proto == PROTO_TCP:
        return info.l4_offset + 16
    if info.proto == PROTO_UDP:
        return info.l4_offset + 6
    if info.proto == PROTO_ICMP6 and info.version == 6:
        return info.l4_offset + 2
    return 0


cdef void _replace(uint8_t* packet, const packet_info_t* info, uint8_t* field, const uint8_t* address, uint32_t n,
                   int partial) noexcept nogil:
    cdef uint64_t before = sum_c(field, n, 0), after = sum_c(address, n, 0)
    cdef uint32_t at = _checksum_at(info)
    cdef uint16_t check
    memcpy(field, address, n)
    if info.version == 4:
        put16raw(packet + 10, update_checksum_c(get16raw(packet + 10), before, after))
    if at == 0 or at + 2 > info.total_bytes:
        return
    check = get16raw(packet + at)
    if partial:
        put16raw(packet + at, <uint16_t> ~update_checksum_c(<uint16_t> ~check, before, after))
    elif check or info.proto != PROTO_UDP:      # a datagram without checksum keeps none (RFC 768)
        check = update_checksum_c(check, before, after)
        put16raw(packet + at, check if check or info.proto != PROTO_UDP else 0xFFFF)


cdef void masquerade_out_c(const masquerade_t* masquerade, uint8_t* packet, const packet_info_t* info,
                           int partial) noexcept nogil:
    if info.version == 4:
        if masquerade.v4 and memcmp(info.src, masquerade.own4, 4) == 0:
            _replace(packet, info, packet + 12, masquerade.shown4, 4, partial)
    elif masquerade.v6 and memcmp(info.src, masquerade.own6, 16) == 0:
        _replace(packet, info, packet + 8, masquerade.shown6, 16, partial)


cdef void masquerade_in_c(const masquerade_t* masquerade, uint8_t* packet, const packet_info_t* info) noexcept nogil:
    if info.version == 4:
        if masquerade.v4 and memcmp(info.dst, masquerade.shown4, 4) == 0:
            _replace(packet, info, packet + 16, masquerade.own4, 4, 0)
    elif masquerade.v6 and memcmp(info.dst, masquerade.shown6, 16) == 0:
        _replace(packet, info, packet + 24, masquerade.own6, 16, 0)


cdef class Masquerade:
    """The addresses by which one peer knows us."""

    def __cinit__(self, pairs not None):
        cdef bytes own, shown
        for own, shown in pairs:
            if len(own) == 4 and len(shown) == 4 and not self.c.v4:
                memcpy(self.c.own4, <char*> own, 4)
                memcpy(self.c.shown4, <char*> shown, 4)
                self.c.v4 = 1
            elif len(own) == 16 and len(shown) == 16 and not self.c.v6:
                memcpy(self.c.own6, <char*> own, 16)
                memcpy(self.c.shown6, <char*> shown, 16)
                self.c.v6 = 1
            else:
                raise ValueError("one pair of addresses a family, of 4 or 16 bytes")

    def outbound(self, bytes packet not None, *, bint partial=False) -> bytes:
        cdef packet_info_t info
        cdef bytearray copy = bytearray(packet)
        cdef uint8_t* raw = <uint8_t*> <char*> copy
        if parse_c(raw, len(copy), &info) != FAST_OK:
            raise ValueError("not an IP packet")
        masquerade_out_c(&self.c, raw, &info, partial)
        return bytes(copy)

    def inbound(self, bytes packet not None) -> bytes:
        cdef packet_info_t info
        cdef bytearray copy = bytearray(packet)
        cdef uint8_t* raw = <uint8_t*> <char*> copy
        if parse_c(raw, len(copy), &info) != FAST_OK:
            raise ValueError("not an IP packet")
        masquerade_in_c(&self.c, raw, &info)
        return bytes(copy)
