"""Frames of a relay connection; the contract is in derpframes.pyi."""
# freethreading: a RelayedPackets is filled before anybody else has it and does not change then.

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from meshd._fast.netbytes cimport get32be, get32le

MAX_FRAME = DERP_MAX_FRAME
MAX_PACKET = DERP_MAX_PACKET
BUNDLE_TYPE = DERP_BUNDLE_TYPE
BUNDLE_BYTES = DERP_BUNDLE_BYTES

Frames = namedtuple("Frames", ("whole", "needed", "transport", "others", "sources", "control"))

cdef enum:
    TRANSPORT = 4               # the first four bytes of a WireGuard transport message, as a little-endian number


cdef class RelayedPackets:
    def __dealloc__(self):
        free(self.runs)

    cdef int _add(self, uint32_t offset, uint32_t n, uint32_t segment) except -1:
        cdef relayed_run_t* grown
        if self.count == self.room:
            grown = <relayed_run_t*> realloc(self.runs, (2 * self.room + 16) * sizeof(relayed_run_t))
            if grown == NULL:
                raise MemoryError
            self.runs = grown
            self.room = 2 * self.room + 16
        self.runs[self.count].offset = offset
        self.runs[self.count].bytes = n
        self.runs[self.count].segment = segment
        self.count += 1
        return 0

    def __len__(self):
        cdef uint32_t i
        cdef uint64_t total = 0
        for i in range(self.count):
            total += (self.runs[i].bytes + self.runs[i].segment - 1) // self.runs[i].segment
        return total

    def __iter__(self):
        cdef uint32_t i, offset, end
        cdef list packets = []
        for i in range(self.count):
            offset = self.runs[i].offset
            end = offset + self.runs[i].bytes
            while offset < end:
                packets.append(self.data[offset:min(offset + self.runs[i].segment, end)])
                offset += self.runs[i].segment
        return iter(packets)


def split_frames(bytes data not None):
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef const uint8_t* source = NULL
    cdef const uint8_t* packet
    cdef size_t size = PyBytes_GET_SIZE(data), offset = 0, needed
    cdef uint32_t length, n, segment
    cdef RelayedPackets transport = RelayedPackets()
    cdef list others = [], control = []
    cdef set sources = set()
    cdef bytes sender = None
    if size > <size_t> 0xffffffff:
        raise ValueError("too much at once")
    transport.data = data
    while True:
        needed = DERP_HEADER_BYTES
        if size - offset < needed:
            break
        length = get32be(at + offset + 1)
        needed += length
        if length > DERP_MAX_FRAME or size - offset < needed:
            break
        if at[offset] != DERP_RECV_PACKET or not DERP_KEY_BYTES <= length <= DERP_KEY_BYTES + DERP_MAX_PACKET:
            control.append((at[offset], data[offset + DERP_HEADER_BYTES:offset + needed]))
            offset += needed
            continue
        packet = at + offset + DERP_HEADER_BYTES
        if source == NULL or memcmp(source, packet, DERP_KEY_BYTES):
            source = packet
            sender = PyBytes_FromStringAndSize(<const char*> source, DERP_KEY_BYTES)
            sources.add(sender)
        packet += DERP_KEY_BYTES
        n = length - DERP_KEY_BYTES
        segment = bundle_segment_c(packet, n)
        if segment:
            transport._add(<uint32_t> (packet - at) + DERP_BUNDLE_HEADER_BYTES, n - DERP_BUNDLE_HEADER_BYTES, segment)
        elif n >= 4 and get32le(packet) == TRANSPORT:
            transport._add(<uint32_t> (packet - at), n, n)
        else:
            others.append((sender, PyBytes_FromStringAndSize(<const char*> packet, n)))
        offset += needed
    return Frames(offset, needed, transport, others, sources, control)
