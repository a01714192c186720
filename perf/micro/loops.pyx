"""C loops around the functions of meshd._fast; each gives the seconds that `loops` calls took."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from meshd._fast.aead cimport Cipher
from meshd._fast.filter cimport Filter, FlowTable, filter_in_c, filter_out_c
from meshd._fast.ipset cimport IPSet, ipset_contains_c
from meshd._fast.lpm cimport PrefixMap, lpm_insert_c, lpm_lookup_c, lpm_reclaim_c, lpm_remove_c
from meshd._fast.packet cimport fold_c, packet_info_t, parse_c, sum_c
from meshd._fast.replay cimport Window, replay_accept_c
from meshd._fast.segment cimport vnet_header_t
from meshd._fast.via cimport Via
from meshd._fast.viain cimport VIA_IN_DONE, via_in_c, via_in_t
from meshd._fast.viaout cimport VIA_OUT_WHOLE, via_out_c, via_out_t
from meshd._fast.viaroutes cimport VIA_HEADROOM

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* at)
    int CLOCK_MONOTONIC

# Results end here, so that no loop is optimised away.
cdef volatile uint64_t sink = 0


cdef double now() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


cdef class Packets:
    """Packets one after another in memory, parsed."""

    cdef bytes data
    cdef packet_info_t infos[64]
    cdef int n

    def __init__(self, packets):
        cdef size_t at = 0
        cdef const uint8_t* base
        self.data = b"".join(packets)
        self.n = len(packets)
        base = <const uint8_t*><const char*>self.data
        for i, packet in enumerate(packets):
            if parse_c(base + at, len(packet), &self.infos[i]) != 0:
                raise ValueError("malformed packet")
            at += len(packet)


def seal(long loops, Cipher cipher, size_t n):
    cdef uint8_t[2048] buffer
    cdef uint8_t[32] key
    cdef double start = now()
    cdef long i
    key[0] = 1
    for i in range(loops):
        cipher.backend.seal(cipher.ctx, buffer, buffer, n, i, key)
    return now() - start


def open_(long loops, Cipher cipher, const uint8_t[::1] sealed, uint64_t counter, const uint8_t[::1] key):
    cdef uint8_t[2048] out
    cdef double start = now()
    cdef long _
    cdef int failed = 0
    for _ in range(loops):
        failed |= cipher.backend.open(cipher.ctx, out, &sealed[0], sealed.shape[0], counter, &key[0])
    if failed:
        raise ValueError("not authentic")
    return now() - start


def replay(long loops, Window window, uint64_t step):
    """Counters in order when step is 1; greater steps clear blocks."""
    global sink
    cdef uint64_t counter = window.c.last, accepted = 0
    cdef double start = now()
    cdef long _
    for _ in range(loops):
        counter += step
        accepted += replay_accept_c(&window.c, counter)
    sink = accepted
    return now() - start


def parse(long loops, const uint8_t[::1] packet):
    global sink
    cdef packet_info_t info
    cdef uint64_t total = 0
    cdef double start = now()
    cdef long _
    for _ in range(loops):
        parse_c(&packet[0], packet.shape[0], &info)
        total += info.dst_port
    sink = total
    return now() - start


def checksum(long loops, const uint8_t[::1] data):
    global sink
    cdef uint64_t total = 0
    cdef double start = now()
    cdef long i
    for i in range(loops):
        total += fold_c(sum_c(&data[0], data.shape[0], i))
    sink = total
    return now() - start


def lookup(long loops, PrefixMap table, const uint8_t[::1] addresses, int size):
    """Looks up the concatenated addresses in turn."""
    global sink
    cdef uint64_t total = 0
    cdef size_t at = 0
    cdef double start = now()
    cdef long _
    for _ in range(loops):
        total += lpm_lookup_c(table.c, &addresses[at], 4 if size == 4 else 6)
        at += size
        if at == <size_t>addresses.shape[0]:
            at = 0
    sink = total
    return now() - start


def insert_remove(long loops, PrefixMap table, const uint8_t[::1] addresses, int size, int bits):
    """One insert and one remove per loop."""
    cdef size_t at = 0
    cdef double start = now()
    cdef long _
    for _ in range(loops):
        lpm_insert_c(table.c, &addresses[at], 4 if size == 4 else 6, bits, 1)
        lpm_remove_c(table.c, &addresses[at], 4 if size == 4 else 6, bits)
        lpm_reclaim_c(table.c)
        at += size
        if at == <size_t>addresses.shape[0]:
            at = 0
    return now() - start


def contains(long loops, IPSet addresses, const uint8_t[::1] probes, int size):
    global sink
    cdef uint64_t total = 0
    cdef size_t at = 0
    cdef double start = now()
    cdef long _
    for _ in range(loops):
        total += ipset_contains_c(&addresses.c, &probes[at], 4 if size == 4 else 6)
        at += size
        if at == <size_t>probes.shape[0]:
            at = 0
    sink = total
    return now() - start


def filter_in(long loops, Filter program, FlowTable flows, Packets packets, int expected):
    cdef double start = now()
    cdef long _
    cdef int at = 0, wrong = 0
    for _ in range(loops):
        wrong |= filter_in_c(program.c, flows.c, &packets.infos[at]) ^ expected
        at = at + 1 if at + 1 < packets.n else 0
    if wrong:
        raise ValueError("not the expected verdict")
    return now() - start


def filter_out(long loops, Filter program, FlowTable flows, Packets packets):
    cdef double start = now()
    cdef long _
    cdef int at = 0
    for _ in range(loops):
        filter_out_c(program.c, flows.c, &packets.infos[at])
        at = at + 1 if at + 1 < packets.n else 0
    return now() - start


def via_there_and_back(long loops, Via via, const uint8_t[::1] there, const uint8_t[::1] back):
    """A packet of a peer to a via address, and an answer of the host, both written anew each time."""
    cdef uint8_t[2048] buffer
    cdef uint8_t* packet = buffer + VIA_HEADROOM
    cdef packet_info_t info
    cdef vnet_header_t vnet
    cdef via_in_t entered
    cdef via_out_t left
    cdef uint32_t source = 0x05004064
    cdef double start = now()
    cdef long i
    memset(&vnet, 0, sizeof(vnet))
    for i in range(loops):
        memcpy(packet, &there[0], there.shape[0])
        parse_c(packet, there.shape[0], &info)
        if via_in_c(&via.c, packet, &info, source, 1, 1280, <uint16_t> i, 1, &entered) != VIA_IN_DONE:
            raise ValueError("not translated")
        memcpy(packet, &back[0], back.shape[0])
        parse_c(packet, back.shape[0], &info)
        if via_out_c(&via.c, &vnet, packet, &info, 1280, 1, &left) != VIA_OUT_WHOLE:
            raise ValueError("not translated")
    return now() - start
