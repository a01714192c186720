"""C API of the longest-prefix map: one writer thread, any number of lock-free readers.

A writer publishes with release stores and never changes what a reader may be following except single words that are
atomic on their own. Memory taken out of use is kept on the map's retired list, because readers may still be in it;
only lpm_reclaim_c frees it. Call that when every reader has passed a quiescent point (was outside lpm_lookup_c) since
the last insert or remove.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from meshd._fast.hostroutes cimport (
    LPM_ABSENT,
    LPM_INVALID,
    LPM_NO_MEMORY,
    LPM_NONE,
    LPM_OK,
    LPM_REPLACED,
    hosts4_t,
    hosts6_t,
    hosts_t,
    memory_t,
    retired_t,
)

cdef enum:
    LPM_FANOUT = 16

# Sixteen-way trie node over the four bits that start at `depth`; chains of single children are skipped by comparing
# `depth` leading bits at once. It holds the prefixes of length depth+1..depth+4 that lie in it.
cdef struct lpm_slot_t:
    void* child                         # lpm_node_t*, published
    int32_t value                       # of the longest own prefix that covers this slot, or LPM_NONE

cdef struct lpm_node_t:
    retired_t retired
    uint64_t key_hi
    uint64_t key_lo
    uint64_t mask_hi
    uint64_t mask_lo
    int32_t depth
    int32_t owned                       # prefixes in `own`
    lpm_slot_t slots[16]
    int32_t own[32]                     # writer only: heap order, own[(1 << r) | top r bits], r = length - depth

cdef struct lpm_t:
    hosts_t hosts4
    hosts_t hosts6
    void* root4                         # lpm_node_t*, published
    void* root6
    int32_t default4                    # value of the zero-length prefix
    int32_t default6
    size_t prefixes                     # live
    memory_t memory

cdef class PrefixMap:
    cdef lpm_t* c

cdef lpm_t* lpm_new_c() noexcept nogil
cdef void lpm_free_c(lpm_t* map) noexcept nogil                 # NULL is fine; frees the retired list as well

# family 4 or 6; addr is 4 or 16 bytes, bits beyond the length are ignored; value 0..2^31-2. Writer thread.
cdef int lpm_insert_c(lpm_t* map, const uint8_t* addr, int family, int bits, int32_t value) noexcept nogil
cdef int lpm_remove_c(lpm_t* map, const uint8_t* addr, int family, int bits) noexcept nogil
# The value of exactly this prefix, LPM_NONE when absent. Writer thread.
cdef int32_t lpm_get_c(const lpm_t* map, const uint8_t* addr, int family, int bits) noexcept nogil
# Frees retired memory, see above; returns how many pieces.
cdef size_t lpm_reclaim_c(lpm_t* map) noexcept nogil

# The value of the longest prefix that contains the address, LPM_NONE when there is none. Any thread.
cdef int32_t lpm_lookup_c(const lpm_t* map, const uint8_t* addr, int family) noexcept nogil
