"""C API of the flow table: the reverse flows of what this node sent over UDP and SCTP.

Set-associative with least-recently-used replacement per set. Look-ups take no lock, and write only when another flow
was inserted since the last use, so any number of threads can share one table. It outlives filter programs: a new one
goes on with the same table.
"""

from libc.stdint cimport uint32_t, uint64_t

from meshd._fast.packet cimport packet_info_t

cdef enum:
    FLOW_SETS = 512
    FLOW_WAYS = 8
    FLOW_KEY_WORDS = 5

cdef struct flow_set_t:
    uint32_t version                # odd while a writer changes the set
    uint32_t tags[8]                # part of the hash; 0: empty
    uint32_t stamps[8]              # table clock at last use
    uint64_t keys[8][5]             # source 16, destination 16, family, protocol and ports 8

cdef struct flow_table_t:
    uint32_t clock                  # counts inserts
    uint64_t seed
    flow_set_t* sets

cdef class FlowTable:
    cdef flow_table_t* c

# Whether the packet belongs to a remembered flow; refreshes its age. Any thread.
cdef bint flow_seen_c(flow_table_t* flows, const packet_info_t* info) noexcept nogil

# Remembers the flow that answers this packet. Any thread.
cdef void flow_remember_c(flow_table_t* flows, const packet_info_t* info) noexcept nogil
