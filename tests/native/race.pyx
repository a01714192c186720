"""Threads without the interpreter lock on the structures that are read without locks.

Every function is a C loop: Python threads call them at the same time, which Python code alone cannot do.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from meshd._fast.flow cimport FlowTable, flow_remember_c, flow_seen_c
from meshd._fast.lpm cimport PrefixMap, lpm_insert_c, lpm_lookup_c, lpm_reclaim_c, lpm_remove_c
from meshd._fast.packet cimport packet_info_t
from meshd._fast.viaflow cimport ViaFlows, via_flow_t, via_key_t, viaflow_answer_c, viaflow_claim_c

cdef extern from "atomic.h" nogil:
    uint32_t load_acquire_u32(const uint32_t* at)
    void store_release_u32(uint32_t* to, uint32_t value)
    uint32_t add_relaxed_u32(uint32_t* to, uint32_t value)
    void cpu_pause()


cdef class Race:
    """Start and end of a race: readers run until the writer is done, and are counted in and out."""

    cdef uint32_t done
    cdef uint32_t ready

    def reset(self):
        self.done = 0
        self.ready = 0


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x = (x ^ (x >> 30)) * <uint64_t>0x3F58476D1CE4E5B9
    return x ^ (x >> 27)


cdef inline void address(uint8_t* out, uint8_t kind, uint32_t number) noexcept nogil:
    """Sixteen bytes, of which IPv4 uses the first four: kind, then the number."""
    memset(out, 0, 16)
    out[0] = kind
    out[1] = (number >> 16) & 255
    out[2] = (number >> 8) & 255
    out[3] = number & 255
    out[15] = kind


def lpm_fill(PrefixMap table, int count):
    """Stable prefixes, value = their number: hosts of kind 1, /24 of kind 2, default 0x7000."""
    cdef uint8_t addr[16]
    cdef int i
    for i in range(count):
        for family in (4, 6):
            address(addr, 1, i)
            lpm_insert_c(table.c, addr, family, 32 if family == 4 else 128, i)
            address(addr, 2, i << 8)
            lpm_insert_c(table.c, addr, family, 24, i)
    memset(addr, 0, 16)
    lpm_insert_c(table.c, addr, 4, 0, 0x7000)
    lpm_insert_c(table.c, addr, 6, 0, 0x7000)


def lpm_write(Race race, PrefixMap table, int count, int rounds, uint32_t readers):
    """Churn around and above the stable prefixes, without freeing: grows, rebuilds, splits and prunes."""
    cdef uint8_t addr[16]
    cdef uint64_t x
    cdef int i, family, bits
    with nogil:
        while load_acquire_u32(&race.ready) < readers:
            cpu_pause()
        for i in range(rounds):
            x = mix(i + 1)
            family = 4 if x & 1 else 6
            # Kind 3: hosts that come and go. Kind 2 between /8 and /23: prefixes around the stable ones.
            address(addr, 3, (x >> 8) % (4 * count))
            if x & 2:
                lpm_insert_c(table.c, addr, family, 32 if family == 4 else 128, 0x100000)
            else:
                lpm_remove_c(table.c, addr, family, 32 if family == 4 else 128)
            address(addr, 2, ((x >> 16) % count) << 8)
            bits = 8 + (x >> 40) % 16
            if x & 4:
                lpm_insert_c(table.c, addr, family, bits, 0x200000)
            else:
                lpm_remove_c(table.c, addr, family, bits)
        store_release_u32(&race.done, 1)


def lpm_read(Race race, PrefixMap table, int count, uint64_t seed):
    """Looks up stable prefixes until the writer is done; (lookups, wrong answers)."""
    cdef uint8_t addr[16]
    cdef uint64_t x = seed, looked = 0, wrong = 0
    cdef int32_t found
    cdef uint32_t number
    cdef int family
    with nogil:
        add_relaxed_u32(&race.ready, 1)
        while not load_acquire_u32(&race.done):
            x = mix(x + 0x9E37)
            number = (x >> 8) % count
            family = 4 if x & 1 else 6
            address(addr, 1, number)
            wrong += lpm_lookup_c(table.c, addr, family) != <int32_t>number
            address(addr, 2, (number << 8) | (x & 255))
            wrong += lpm_lookup_c(table.c, addr, family) != <int32_t>number
            address(addr, 3, (x >> 8) % (4 * count))
            found = lpm_lookup_c(table.c, addr, family)
            wrong += found != 0x100000 and found != 0x7000
            address(addr, 4, number)
            wrong += lpm_lookup_c(table.c, addr, family) != 0x7000
            looked += 4
    return looked, wrong


def lpm_reclaim(PrefixMap table):
    return lpm_reclaim_c(table.c)


cdef inline void flow_packet(packet_info_t* info, uint8_t* src, uint8_t* dst, uint8_t kind,
                             uint32_t number) noexcept nogil:
    memset(info, 0, sizeof(packet_info_t))
    address(src, kind, number)
    address(dst, kind + 1, number * 3)
    info.version = 6
    info.proto = 17
    info.src = src
    info.dst = dst
    info.src_port = number & 0xffff
    info.dst_port = 53


cdef inline void reverse(packet_info_t* info) noexcept nogil:
    cdef const uint8_t* addr = info.src
    cdef uint32_t port = info.src_port
    info.src = info.dst
    info.dst = addr
    info.src_port = info.dst_port
    info.dst_port = port


def flow_write(Race race, FlowTable flows, int rounds, uint32_t readers, uint8_t kind):
    """Floods the table with flows of one kind, keeping number 0 of kind 100 in use."""
    cdef uint8_t src[16]
    cdef uint8_t dst[16]
    cdef packet_info_t info
    cdef int i
    with nogil:
        while load_acquire_u32(&race.ready) < readers:
            cpu_pause()
        for i in range(rounds):
            flow_packet(&info, src, dst, kind, i)
            flow_remember_c(flows.c, &info)
            flow_packet(&info, src, dst, 100, 0)
            flow_remember_c(flows.c, &info)
        add_relaxed_u32(&race.done, 1)


def flow_read(Race race, FlowTable flows, uint32_t writers):
    """(lookups, invented flows, times the used flow was gone) until the writers are done."""
    cdef uint8_t src[16]
    cdef uint8_t dst[16]
    cdef packet_info_t info
    cdef uint64_t looked = 0, invented = 0, gone = 0
    with nogil:
        flow_packet(&info, src, dst, 100, 0)
        flow_remember_c(flows.c, &info)
        add_relaxed_u32(&race.ready, 1)
        while load_acquire_u32(&race.done) < writers:
            looked += 1
            # Half of one flow and half of another: never sent by anyone.
            flow_packet(&info, src, dst, 10, <uint32_t>looked & 0xffff)
            src[15] = 20
            reverse(&info)
            invented += flow_seen_c(flows.c, &info)
            flow_packet(&info, src, dst, 100, 0)
            reverse(&info)
            gone += not flow_seen_c(flows.c, &info)
    return looked, invented, gone


cdef inline void via_key(via_key_t* key, uint64_t number) noexcept nogil:
    """One of few: the table stays full, and ports are in demand."""
    number = mix(number)
    key.host = <uint32_t> (number & 0xfff)
    key.peer = <uint32_t> (number >> 12) & 0xff
    key.proto = 17
    key.port = <uint16_t> ((number >> 20) & 3)
    key.host_port = 53


def via_write(Race race, ViaFlows flows, int rounds, uint32_t readers, uint64_t seed):
    """Begins flows whose source is made of their ends and port."""
    cdef via_key_t key
    cdef via_flow_t flow
    cdef int i
    with nogil:
        while load_acquire_u32(&race.ready) < readers:
            cpu_pause()
        for i in range(rounds):
            via_key(&key, seed + i)
            flow.site = <uint32_t> (i & 1)
            flow.port = key.port
            flow.source[0] = mix(key.host)
            flow.source[1] = mix(key.peer) ^ key.port
            viaflow_claim_c(flows.c, &key, &flow, <int32_t> seed, 0, <uint32_t> i >> 12)
        add_relaxed_u32(&race.done, 1)


def via_read(Race race, ViaFlows flows, uint32_t writers, uint64_t seed):
    """(answers found, those that belong to no flow that was begun) until the writers are done."""
    cdef via_key_t key
    cdef via_flow_t flow
    cdef uint64_t found = 0, invented = 0
    with nogil:
        add_relaxed_u32(&race.ready, 1)
        while load_acquire_u32(&race.done) < writers:
            seed += 1
            via_key(&key, seed)
            if viaflow_answer_c(flows.c, &key, &flow, 0, True, 0):
                found += 1
                invented += flow.source[0] != mix(key.host) or flow.source[1] != mix(key.peer) ^ flow.port
                invented += flow.port > 3 or flow.site > 1
    return found, invented
