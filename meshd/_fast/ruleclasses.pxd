"""Classes of addresses, and the table of their pairs, of a filter program.

A class stands for the addresses that the same rules name. Its mask is a bitmap in a Python int: of source lists
(groups) for sources, of `local` (bit 0) and targets (from bit 1) for destinations. A prefix has a mask of its own and,
from the prefixes around it, all of theirs; so a class is its own mask and the class of the nearest prefix around, and
a change of a wide prefix (``*``) changes a few classes rather than every address. The zero-length prefix is always
there.
"""

from libc.stddef cimport size_t

from meshd._fast.lpm cimport lpm_t
from meshd._fast.ruleset cimport filter_table_t
from meshd._fast.ruleverdicts cimport Verdicts

# One family's addresses as sources or as destinations. Lists are by class number; -1 is no class.
cdef class Side:
    cdef lpm_t* map
    cdef int version
    cdef bint marked                # destinations: values of the map show bit 0 of the mask
    cdef int lengths[129]           # prefixes of each length
    cdef list masks                 # None: number not in use
    cdef list own, parents
    cdef list holders               # prefixes that have the class
    cdef list children              # classes around which it is the nearest
    cdef dict known                 # (own mask, parent) -> number
    cdef list free_numbers, old     # for reuse, and for reuse after `settle`

    cdef int number_of(self, bytes key) noexcept
    cdef object own_mask(self, bytes key)
    cdef int around(self, bytes key) noexcept
    cdef int put(self, bytes key, int number) except -1
    cdef int take(self, bytes key) noexcept
    cdef bint has_longer(self, bytes key) noexcept
    cdef int number(self, own, int parent) except -1
    cdef int drop(self, int number) except -1
    cdef int retire(self, int number) except -1
    cdef int forget(self, int number) except -1

# Both sides of a family. Keys are packed addresses and a byte of length.
cdef class Family:
    cdef Side sources, destinations
    cdef filter_table_t* table
    cdef void** slot                # where the program publishes it
    cdef Verdicts verdicts
    cdef dict reach                 # number of a group -> mask of its targets
    cdef dict reached               # source class -> mask of targets, of classes met lately
    cdef list old_tables            # addresses

    # For a new program: all prefixes with their masks, then `fill`. False: too many pairs.
    cdef int load(self, Side side, dict masks) except -1
    cdef bint fill(self) except -1
    # Gives a prefix another mask of its own, 0: none. inside(key) lists the side's prefixes within one.
    cdef int move(self, Side side, bytes key, own, inside) except -1
    cdef int settle(self) except -1
    # The targets of some groups (a mask) are others now.
    cdef int reach_changed(self, groups) except -1
    cdef int count(self, Side side) except -1

    cdef filter_table_t* new_table(self, size_t rows, size_t columns) except NULL
    cdef int judge(self, int source, int destination) except -1
    cdef int judge_row(self, int source) except -1
    cdef int judge_class(self, Side side, int number) except -1
    cdef int clear(self, Side side, int number) except -1
    cdef int make_room(self) except -1
    cdef int class_of(self, Side side, own, int parent) except -1
    cdef int rewrite(self, Side side, int number, own) except -1
    cdef int relabel(self, Side side, list keys) except -1

cdef bint key_contains(bytes outer, bytes inner)
cdef bytes key_of(bytes address, int bits)
