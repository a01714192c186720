"""C API: how much of what the event loop must look at is taken from one source."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SOURCE_SETS = 512           # of two sources each; a power of two

cdef enum source_kind_t:
    SOURCE_HANDSHAKE = 1        # may cost a key exchange
    SOURCE_OTHER = 2            # disco, STUN, cookie replies

# All zero but for the seed is the initial state. One thread per table. 16 kB.
cdef struct source_limit_t:
    uint64_t seed
    uint64_t keys[1024]
    uint64_t due[1024]          # ns; when the source will have paid for all that was taken from it


cdef class SourceLimit:
    cdef source_limit_t c


# With a random seed; NULL when memory or randomness is short.
cdef source_limit_t* source_limit_new_c() noexcept nogil
cdef void source_limit_free_c(source_limit_t* table) noexcept nogil
# Network byte order address of 4 or 16 bytes (counted by /32 and /64), a source_kind_t, CLOCK_MONOTONIC in ns.
cdef int source_allow_c(source_limit_t* table, const uint8_t* address, uint32_t bytes_, uint32_t kind,
                        uint64_t now) noexcept nogil
