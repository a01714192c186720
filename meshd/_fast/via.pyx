"""Via addresses; the contract is in via.pyi, the C contract in viaroutes.pxd, viain.pxd and viaout.pxd."""
# freethreading: values that do not change, and a ViaFlows, which is made for many threads.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from meshd._fast.netbytes cimport get32be
from meshd._fast.packet cimport FAST_OK, packet_info_t, parse_c
from meshd._fast.segment cimport VNET_BYTES, vnet_header_t
from meshd._fast.translate cimport IP6_MIN_MTU
from meshd._fast.viaflow cimport via_tick_c
from meshd._fast.viain cimport VIA_IN_DONE, via_clash_c, via_in_c, via_in_result_t, via_in_t
from meshd._fast.viaout cimport (
    VIA_OUT_PARTS,
    VIA_OUT_TOO_BIG,
    VIA_OUT_WHOLE,
    VIA_TOO_BIG_BYTES,
    via_out_c,
    via_out_result_t,
    via_out_t,
    via_part_c,
    via_too_big_c,
)
from meshd._fast.viaroutes cimport VIA_HEADROOM, via_range_t

PREFIX = bytes.fromhex("fd7a115ca1e00b1a")

cdef tuple IN_RESULTS = ("done", "other", "no_ipv4", "refused", "no_port", "no_flow")
cdef tuple OUT_RESULTS = ("plain", "whole", "parts", "too_big", "cut", "refused")


cdef list _ranges(prefixes):
    """Sorted, disjoint ranges of the last 64 bits."""
    cdef list merged = [], found = []
    end = -2
    for address, bits in prefixes:
        if len(address) not in (4, 16) or not 0 <= bits <= len(address) * 8:
            raise ValueError("not a prefix")
        if bits >= 64 and address[:8] == PREFIX:
            first = int.from_bytes(address[8:], "big") >> (128 - bits) << (128 - bits)
            found.append((first, first | ((1 << (128 - bits)) - 1)))
    for first, last in sorted(found):
        if merged and first <= end + 1:
            first, _ = merged.pop()
            last = max(last, end)
        merged.append((first, last))
        end = last
    return merged


cdef class Via:
    """What this node translates."""

    def __cinit__(self, prefixes not None, *, own=(), ViaFlows flows=None):
        cdef via_range_t* range_
        cdef bytes address
        ranges = _ranges(prefixes)
        for address in own:
            if len(address) == 4:
                self.c.own4 = self.c.own4 or get32be(<const uint8_t*> <char*> address)
            elif len(address) == 16:
                if not any((<char*> self.c.own6)[:16]):
                    memcpy(self.c.own6, <char*> address, 16)
            else:
                raise ValueError("an address has 4 or 16 bytes")
        if ranges:
            self.c.ranges = <via_range_t*> malloc(len(ranges) * sizeof(via_range_t))
            if self.c.ranges == NULL:
                raise MemoryError
        for first, last in ranges:
            range_ = &self.c.ranges[self.c.count]
            range_.first = first
            range_.last = last
            self.c.count += 1
        self.flows = ViaFlows() if flows is None else flows
        self.c.flows = self.flows.c

    def __dealloc__(self):
        free(self.c.ranges)

    def __bool__(self):
        return self.c.count > 0

    def inbound(self, bytes packet not None, bytes ipv4 not None, *, int32_t peer=0, uint32_t mtu=1280, double now=0.0,
                uint16_t ident=0):
        cdef packet_info_t info
        cdef via_in_t out
        cdef bytearray copy = bytearray(packet)
        cdef uint8_t* raw = <uint8_t*> <char*> copy
        cdef uint32_t source = 0
        cdef via_in_result_t result
        if parse_c(raw, len(copy), &info) != FAST_OK or len(ipv4) not in (0, 4):
            raise ValueError("not an IP packet or not an address")
        if ipv4:
            memcpy(&source, <char*> ipv4, 4)
        if info.version != 6:
            return "other", packet
        result = via_in_c(&self.c, raw, &info, source, peer, max(mtu, <uint32_t> IP6_MIN_MTU), ident, _tick(now), &out)
        if result != VIA_IN_DONE:
            return IN_RESULTS[<int> result], bytes(copy)
        return "done", (<char*> out.packet)[:out.bytes]

    def clashes(self, bytes packet not None, *, double now=0.0):
        cdef packet_info_t info
        if parse_c(<const uint8_t*> <char*> packet, len(packet), &info) != FAST_OK:
            raise ValueError("not an IP packet")
        return info.version == 4 and bool(via_clash_c(&self.c, &info, _tick(now)))

    def outbound(self, bytes packet not None, bytes vnet not None=bytes(10), *, uint32_t mtu=1280, double now=0.0):
        cdef packet_info_t info
        cdef via_out_t out
        cdef vnet_header_t header
        cdef bytearray copy = bytearray(VIA_HEADROOM) + packet
        cdef uint8_t* raw = <uint8_t*> <char*> copy + VIA_HEADROOM
        cdef uint8_t told[VIA_TOO_BIG_BYTES]
        cdef bytearray part
        cdef via_out_result_t result
        cdef uint32_t i, n
        cdef list made = []
        if parse_c(raw, len(packet), &info) != FAST_OK or len(vnet) != VNET_BYTES:
            raise ValueError("not an IP packet or virtio-net header")
        mtu = max(mtu, <uint32_t> IP6_MIN_MTU)
        memcpy(&header, <char*> vnet, VNET_BYTES)
        if info.version != 4:
            return "plain", made
        result = via_out_c(&self.c, &header, raw, &info, mtu, _tick(now), &out)
        if result == VIA_OUT_WHOLE:
            made.append(((<char*> &out.vnet)[:VNET_BYTES], (<char*> out.packet)[:out.bytes]))
        elif result == VIA_OUT_PARTS:
            for i in range(out.parts):
                part = bytearray(mtu)
                n = via_part_c(&out, i, <uint8_t*> <char*> part)
                made.append((bytes(VNET_BYTES), bytes(part[:n])))
        elif result == VIA_OUT_TOO_BIG:
            n = via_too_big_c(raw, &info, mtu, told)
            made.append((bytes(VNET_BYTES), (<char*> told)[:n]))
        return OUT_RESULTS[<int> result], made


cdef uint32_t _tick(double now) noexcept:
    return via_tick_c(<uint64_t> (now * 1e9) if now > 0 else 0)
