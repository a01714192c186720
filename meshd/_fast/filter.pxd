"""C API of the packet filter: a program (ruleset.pxd) over the flow table of flow.pxd."""

from meshd._fast.flow cimport FlowTable, flow_table_t
from meshd._fast.packet cimport packet_info_t
from meshd._fast.ruleset cimport RuleSet, filter_t

cdef enum filter_result_t:
    FILTER_ACCEPT = 0
    FILTER_DROP_SHORT = 1           # not parsable as an IP packet (never from the _c functions)
    FILTER_DROP_UNKNOWN = 2         # transport header that cannot be trusted
    FILTER_DROP_MULTICAST = 3       # destination is multicast
    FILTER_DROP_LINK_LOCAL = 4      # destination is link-local, and not 169.254.169.254
    FILTER_DROP_NOT_LOCAL = 5       # destination is not served by this node
    FILTER_DROP_RULES = 6           # no rule accepts it

cdef class Filter:
    cdef filter_t* c
    cdef RuleSet rules              # owns c
    cdef bint published             # packet threads may be reading it

# For a packet that arrived from a peer. info comes from parse_c with FAST_OK; the Filter object outlives the call.
cdef int filter_in_c(const filter_t* program, flow_table_t* flows, const packet_info_t* info) noexcept nogil

# For a packet on its way to a peer; remembers the reverse flow of UDP and SCTP.
cdef int filter_out_c(const filter_t* program, flow_table_t* flows, const packet_info_t* info) noexcept nogil
