"""C API of the look over a JSON text: names in another letter case, nesting."""

from libc.stdint cimport uint8_t, uint32_t

cdef struct name_slot_t:
    uint32_t offset  # into the text that holds all names
    uint32_t length  # 0: the slot is free

cdef struct name_table_t:
    const uint8_t* exact  # all names, one after the other
    const uint8_t* folded  # the same in lower case
    name_slot_t* exact_slots
    name_slot_t* folded_slots
    uint32_t mask  # number of slots less one
    uint32_t longest

cdef enum:
    JSON_MISSPELLED = 1  # a member name is unknown as it stands, but known when letter case is ignored
    JSON_TOO_DEEP = 2  # nested deeper than JSON_MAX_DEPTH
    JSON_MAX_DEPTH = 64

# JSON_* bits; looks no further once it is too deep.
cdef int inspect_c(const name_table_t* table, const uint8_t* data, size_t n) noexcept nogil


cdef class NameTable:
    cdef name_table_t c
    cdef bytes _exact
    cdef bytes _folded
    cdef void _insert(self, name_slot_t* slots, const uint8_t* names, uint32_t offset, uint32_t length) noexcept
    cdef _fill(self, list known)
