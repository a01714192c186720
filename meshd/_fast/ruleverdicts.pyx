"""Verdicts of a filter program; the contract is in ruleverdicts.pxd."""
# freethreading: no shared state but the verdicts, which never change once a cell shows them.

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from meshd._fast.ruleset cimport filter_ports_t

cdef enum:
    MADE_LIMIT = 1 << 14

cdef tuple PORT_PROTOCOLS = (6, 17, 132)


cdef inline size_t verdict_bytes(size_t ports) noexcept:
    return sizeof(filter_verdict_t) + ports * sizeof(filter_ports_t)


@cython.wraparound(True)
cdef tuple joined_ranges(list spans):
    """Sorted disjoint port ranges."""
    cdef list out = []
    for first, last in sorted(spans):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(last, out[-1][1]))
        else:
            out.append((first, last))
    return tuple(out)


cdef list bit_numbers(mask):
    cdef list out = []
    while mask:
        low = mask & -mask
        out.append(low.bit_length() - 1)
        mask ^= low
    return out


cdef class Verdicts:
    def __cinit__(self):
        self.targets = {}
        self.known = {}
        self.contents = {}
        self.made = {}
        self.idle = []

    def __dealloc__(self):
        if self.contents is not None:
            for at in self.contents:
                free(<void*><size_t>at)

    cdef filter_verdict_t* find(self, mask) except NULL:
        at = self.made.get(mask)
        if at is None:
            content = self.content_of(mask)
            at = self.known.get(content)
            if at is None:
                at = <size_t>self.build(content)
                self.known[content] = at
                self.contents[at] = content
            self.made[mask] = at
        return <filter_verdict_t*><size_t>at

    cdef tuple content_of(self, mask):
        """Protocols open on all ports, as a bitmap, and the ports of each protocol that has some."""
        whole = 0
        cdef tuple spans = ([], [], [])
        for bit in bit_numbers(mask):
            protocols, low, high = self.targets[bit]
            for proto in protocols:
                if low == 0 and high == 0xffff:
                    whole |= 1 << proto
                elif proto in PORT_PROTOCOLS:
                    spans[PORT_PROTOCOLS.index(proto)].append((low, high))
        return whole, joined_ranges(spans[0]), joined_ranges(spans[1]), joined_ranges(spans[2])

    cdef filter_verdict_t* build(self, tuple content) except NULL:
        cdef size_t ports = len(content[1]) + len(content[2]) + len(content[3]), at = 0
        cdef filter_verdict_t* verdict = <filter_verdict_t*>calloc(1, verdict_bytes(ports))
        cdef int kind
        if verdict == NULL:
            raise MemoryError
        for kind in range(4):
            verdict.whole[kind] = <uint64_t>(content[0] >> (64 * kind) & 0xffffffffffffffff)
        for kind in range(3):
            verdict.ports_at[kind] = at
            verdict.ports_n[kind] = len(content[kind + 1])
            for low, high in content[kind + 1]:
                verdict.ports[at].first = low
                verdict.ports[at].last = high
                at += 1
        self.program.bytes_n += verdict_bytes(ports)
        return verdict

    cdef int shown(self, filter_verdict_t* new, filter_verdict_t* old) except -1:
        if new != NULL:
            new.uses += 1
        if old != NULL:
            old.uses -= 1
            if old.uses == 0:
                self.idle.append(<size_t>old)
        return 0

    cdef int settle(self, over) except -1:
        cdef filter_verdict_t* verdict
        cdef tuple content
        if not over and not self.idle:
            return 0
        for at in set(self.idle):
            verdict = <filter_verdict_t*><size_t>at
            if verdict.uses == 0:
                content = self.contents.pop(at)
                del self.known[content]
                self.program.bytes_n -= verdict_bytes(len(content[1]) + len(content[2]) + len(content[3]))
                free(verdict)
        self.idle.clear()
        for bit in bit_numbers(over):
            self.targets.pop(bit, None)
        if len(self.made) > MADE_LIMIT:
            self.made.clear()
        self.made = {mask: at for mask, at in self.made.items() if not mask & over and at in self.contents}
        return 0
