"""Verdicts of a filter program: what some targets, taken together, let through."""

from meshd._fast.ruleset cimport filter_t, filter_verdict_t

# A target is a bit: protocols and a range of ports. Equal verdicts are one.
cdef class Verdicts:
    cdef filter_t* program
    cdef dict targets               # bit number -> (protocols, first port, last port)
    cdef dict known                 # content -> address of the verdict
    cdef dict contents              # the other way round
    cdef dict made                  # mask of targets -> address, of masks met lately
    cdef list idle                  # addresses of verdicts that lost their last cell

    # The verdict of a mask that is not 0.
    cdef filter_verdict_t* find(self, mask) except NULL
    # What a cell shows is another one now; either may be NULL.
    cdef int shown(self, filter_verdict_t* new, filter_verdict_t* old) except -1
    # Frees verdicts that no cell shows and no reader can hold, and forgets targets (a mask).
    cdef int settle(self, over) except -1

    cdef tuple content_of(self, mask)
    cdef filter_verdict_t* build(self, tuple content) except NULL

cdef list bit_numbers(mask)
