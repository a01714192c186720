"""Looks over a JSON text before it is decoded; the contract is in jsonnames.pyi."""
# freethreading: a table never changes once it is built.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

MISSPELLED = JSON_MISSPELLED
TOO_DEEP = JSON_TOO_DEEP
MAX_DEPTH = JSON_MAX_DEPTH


cdef inline uint32_t hash_c(const uint8_t* text, size_t n) noexcept nogil:
    # FNV-1a. Names are a fixed set of ours, so nobody can choose collisions among them.
    cdef uint32_t value = 2166136261u
    cdef size_t i
    for i in range(n):
        value = (value ^ text[i]) * 16777619u
    return value


cdef inline int find_c(
    const name_slot_t* slots, const uint8_t* names, uint32_t mask, const uint8_t* text, size_t n
) noexcept nogil:
    cdef uint32_t at = hash_c(text, n) & mask
    while slots[at].length:
        if slots[at].length == n and memcmp(names + slots[at].offset, text, n) == 0:
            return 1
        at = (at + 1) & mask
    return 0


cdef inline int other_case_c(const name_table_t* table, const uint8_t* text, size_t n) noexcept nogil:
    cdef uint8_t lower[64]
    cdef size_t i
    if n == 0 or n > table.longest:
        return 0
    if find_c(table.exact_slots, table.exact, table.mask, text, n):
        return 0
    for i in range(n):
        lower[i] = text[i] + 32 if 65 <= text[i] <= 90 else text[i]
    return find_c(table.folded_slots, table.folded, table.mask, lower, n)


cdef int inspect_c(const name_table_t* table, const uint8_t* data, size_t n) noexcept nogil:
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + n
    cdef const uint8_t* start
    cdef int found = 0
    cdef int escaped
    cdef size_t depth = 0
    cdef size_t length
    cdef uint8_t mark
    while at < end:
        mark = at[0]
        at += 1
        if mark == 123 or mark == 91:
            depth += 1
            if depth > JSON_MAX_DEPTH:
                return found | JSON_TOO_DEEP
        elif mark == 125 or mark == 93:
            depth -= depth != 0
        if mark != 34:
            continue
        start = at
        escaped = 0
        while at < end and at[0] != 34:
            escaped |= at[0] == 92
            # A lone backslash at the very end leaves `at` at `end`, not beyond.
            at += 2 if at[0] == 92 and at + 1 < end else 1
        if at >= end:
            return found
        length = at - start
        at += 1
        while at < end and (at[0] == 32 or 9 <= at[0] <= 10 or at[0] == 13):
            at += 1
        if not found and at < end and at[0] == 58 and not escaped and other_case_c(table, start, length):
            found = JSON_MISSPELLED
    return found


cdef class NameTable:
    """A set of names; see the stub file."""

    def __cinit__(self, names):
        cdef list known = sorted(set(names))
        cdef uint32_t size = 16
        if not all(isinstance(name, bytes) and 0 < len(name) <= 64 and name.isascii() for name in known):
            raise ValueError("names are 1 to 64 ASCII bytes")
        while size < 2 * len(known):
            size *= 2
        self._exact = b"".join(known)
        self._folded = self._exact.lower()
        self.c.exact = self._exact
        self.c.folded = self._folded
        self.c.mask = size - 1
        self.c.longest = max(map(len, known), default=0)
        self.c.exact_slots = <name_slot_t*> calloc(size, sizeof(name_slot_t))
        self.c.folded_slots = <name_slot_t*> calloc(size, sizeof(name_slot_t))
        if self.c.exact_slots == NULL or self.c.folded_slots == NULL:
            raise MemoryError
        self._fill(known)

    cdef void _insert(self, name_slot_t* slots, const uint8_t* names, uint32_t offset, uint32_t length) noexcept:
        cdef uint32_t at = hash_c(names + offset, length) & self.c.mask
        while slots[at].length:
            at = (at + 1) & self.c.mask
        slots[at].offset = offset
        slots[at].length = length

    cdef _fill(self, list known):
        cdef uint32_t offset = 0
        cdef uint32_t length
        for name in known:
            length = len(name)
            self._insert(self.c.exact_slots, self.c.exact, offset, length)
            self._insert(self.c.folded_slots, self.c.folded, offset, length)
            offset += length

    def __dealloc__(self):
        free(self.c.exact_slots)
        free(self.c.folded_slots)

    def inspect(self, const uint8_t[::1] data not None):
        cdef size_t n = data.shape[0]
        cdef int found
        if n == 0:
            return 0
        with nogil:
            found = inspect_c(&self.c, &data[0], n)
        return found
