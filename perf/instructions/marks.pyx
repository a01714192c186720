"""Tells callgrind which part of the run to count; does nothing without it."""

cdef extern from *:
    """
    #include <valgrind/callgrind.h>
    static int mark_counting(void) { return RUNNING_ON_VALGRIND != 0; }
    static void mark_begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
    static void mark_end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
    """
    int mark_counting()
    void mark_begin()
    void mark_end(const char* name)


def count(const char* name, function, long loops, tuple arguments):
    """Call ``function(loops, *arguments)`` and have its instructions written under ``name``."""
    mark_begin()
    function(loops, *arguments)
    mark_end(name)


def counting() -> bool:
    """Whether callgrind is there."""
    return mark_counting() != 0
