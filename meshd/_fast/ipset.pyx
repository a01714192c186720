"""Immutable sets of IP addresses; the contract is in ipset.pyi."""
# freethreading: an IPSet is immutable once built; no shared state.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from meshd._fast.ipprefix cimport (
    Prefix,
    address_load_c,
    address_store_c,
    append_prefixes,
    family_of,
    range_from,
    range_of_prefix,
    ranges_find,
    ranges_intersect,
    ranges_normalise,
    ranges_subtract,
    width_c,
)


cdef bint ipset_contains_c(const ipset_t* addresses, const uint8_t* addr, int family) noexcept nogil:
    cdef uint64_t hi = 0, lo = 0
    cdef int index = 0 if family == 4 else 1
    address_load_c(addr, family, &hi, &lo)
    return ranges_find(addresses.ranges[index], addresses.counts[index], hi, lo) >= 0


cdef ip_range_t* ranges_room(size_t n) except NULL:
    cdef ip_range_t* out = <ip_range_t*>malloc((n or 1) * sizeof(ip_range_t))
    if out == NULL:
        raise MemoryError
    return out


cdef int load_ranges(IPSet made, list four, list six) except -1:
    """Takes lists of (first, last) of one family each."""
    cdef list items
    cdef size_t i
    for index, items in enumerate((four, six)):
        made.c.ranges[index] = ranges_room(len(items))
        i = 0
        for first, last in items:
            range_from(&made.c.ranges[index][i], first, last)
            i += 1
        made.c.counts[index] = ranges_normalise(made.c.ranges[index], i)
    return 0


cdef class IPSet:
    """An immutable set of IPv4 and IPv6 addresses."""

    def __init__(self, ranges=(), prefixes=()):
        cdef Prefix prefix
        cdef list four = [], six = []
        if self.c.ranges[0] != NULL:
            raise TypeError("an IPSet cannot be changed")
        for first, last in ranges:
            (four if family_of(first) == 4 else six).append((first, last))
        for prefix in prefixes:
            (four if prefix.family == 4 else six).append((prefix.address, prefix.last))
        load_ranges(self, four, six)

    def __dealloc__(self):
        free(self.c.ranges[0])
        free(self.c.ranges[1])

    def __contains__(self, bytes address not None):
        cdef int family = family_of(address)
        return ipset_contains_c(&self.c, <const uint8_t*><const char*>address, family)

    def covers(self, Prefix prefix not None):
        """Whether every address of the prefix is in the set."""
        cdef int index = 0 if prefix.family == 4 else 1
        cdef ip_range_t wanted
        cdef ptrdiff_t at
        range_of_prefix(&wanted, prefix.hi, prefix.lo, prefix.bits)
        at = ranges_find(self.c.ranges[index], self.c.counts[index], wanted.first_hi, wanted.first_lo)
        return at >= 0 and ranges_find(self.c.ranges[index] + at, 1, wanted.last_hi, wanted.last_lo) == 0

    def overlaps(self, Prefix prefix not None):
        """Whether at least one address of the prefix is in the set."""
        cdef int index = 0 if prefix.family == 4 else 1
        cdef ip_range_t wanted
        cdef ip_range_t* common
        cdef size_t n
        range_of_prefix(&wanted, prefix.hi, prefix.lo, prefix.bits)
        common = ranges_room(self.c.counts[index] + 1)
        n = ranges_intersect(self.c.ranges[index], self.c.counts[index], &wanted, 1, common)
        free(common)
        return n > 0

    def __or__(self, other):
        cdef IPSet a, b, out
        cdef int index
        if not isinstance(self, IPSet) or not isinstance(other, IPSet):
            return NotImplemented
        a, b = self, other
        out = IPSet.__new__(IPSet)
        for index in range(2):
            out.c.ranges[index] = ranges_room(a.c.counts[index] + b.c.counts[index])
            memcpy(out.c.ranges[index], a.c.ranges[index], a.c.counts[index] * sizeof(ip_range_t))
            memcpy(out.c.ranges[index] + a.c.counts[index], b.c.ranges[index], b.c.counts[index] * sizeof(ip_range_t))
            out.c.counts[index] = ranges_normalise(out.c.ranges[index], a.c.counts[index] + b.c.counts[index])
        return out

    def __sub__(self, other):
        cdef IPSet a, b, out
        cdef int index
        if not isinstance(self, IPSet) or not isinstance(other, IPSet):
            return NotImplemented
        a, b = self, other
        out = IPSet.__new__(IPSet)
        for index in range(2):
            out.c.ranges[index] = ranges_room(a.c.counts[index] + b.c.counts[index])
            out.c.counts[index] = ranges_subtract(a.c.ranges[index], a.c.counts[index], b.c.ranges[index],
                                                  b.c.counts[index], out.c.ranges[index])
        return out

    def __and__(self, other):
        cdef IPSet a, b, out
        cdef int index
        if not isinstance(self, IPSet) or not isinstance(other, IPSet):
            return NotImplemented
        a, b = self, other
        out = IPSet.__new__(IPSet)
        for index in range(2):
            out.c.ranges[index] = ranges_room(a.c.counts[index] + b.c.counts[index])
            out.c.counts[index] = ranges_intersect(a.c.ranges[index], a.c.counts[index], b.c.ranges[index],
                                                   b.c.counts[index], out.c.ranges[index])
        return out

    def __bool__(self):
        return self.c.counts[0] + self.c.counts[1] > 0

    def __eq__(self, other):
        cdef IPSet that
        cdef int index
        if not isinstance(other, IPSet):
            return NotImplemented
        that = other
        for index in range(2):
            if self.c.counts[index] != that.c.counts[index] or memcmp(
                    self.c.ranges[index], that.c.ranges[index], self.c.counts[index] * sizeof(ip_range_t)) != 0:
                return False
        return True

    def __hash__(self):
        return hash(tuple(self.ranges()))

    def ranges(self):
        """The inclusive (first, last) ranges, sorted, IPv4 first."""
        cdef list out = []
        cdef uint8_t[16] first
        cdef uint8_t[16] last
        cdef const ip_range_t* r
        cdef int index, family, n
        cdef size_t i
        for index in range(2):
            family = 4 if index == 0 else 6
            n = width_c(family) // 8
            for i in range(self.c.counts[index]):
                r = &self.c.ranges[index][i]
                address_store_c(first, family, r.first_hi, r.first_lo)
                address_store_c(last, family, r.last_hi, r.last_lo)
                out.append((first[:n], last[:n]))
        return out

    def prefixes(self):
        """The fewest prefixes that make up the set, sorted, IPv4 first."""
        cdef list out = []
        cdef int index
        cdef size_t i
        for index in range(2):
            for i in range(self.c.counts[index]):
                append_prefixes(out, 4 if index == 0 else 6, self.c.ranges[index][i])
        return out

    def __repr__(self):
        return f"IPSet({', '.join(map(str, self.prefixes()))})"
