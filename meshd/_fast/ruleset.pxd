"""The compiled form of packet filter rules, and how it is built and changed.

Addresses become classes: all addresses that the same rules name share one. Per pair of a source class and a destination
class there is one verdict, so a packet costs two prefix look-ups and one table entry however many rules there are.

A program can be changed while packet threads read it. What a reader may be following is published with release stores
and never changed, except single words that are atomic on their own: the class of a prefix, the verdict of a pair. What
was taken out of use (class numbers, verdicts, tables, pieces of the maps) waits for `settle`, which is for when every
reader has passed a quiescent point since the last change. While a change is going on a packet is accepted when the
rules before or after accept it, and refused when both refuse it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from meshd._fast.ipprefix cimport ip_range_t
from meshd._fast.lpm cimport lpm_t

cdef struct filter_ports_t:
    uint16_t first
    uint16_t last

# What one class of sources may reach at one class of destinations. ICMP is accepted wherever a verdict exists.
cdef struct filter_verdict_t:
    uint64_t whole[4]               # bitmap of protocols with a rule over all ports
    uint32_t ports_at[3]            # TCP, UDP, SCTP: sorted disjoint ranges in `ports`
    uint32_t ports_n[3]
    uint32_t uses                   # cells that show it; writer only
    filter_ports_t ports[1]         # as many as the verdict needs

# The pairs of one family. A class number that a map shows is below the sizes of the table published by then.
cdef struct filter_table_t:
    uint32_t rows                   # source classes there is room for
    uint32_t columns                # destination classes
    void* cells[1]                  # [source class][destination class]: filter_verdict_t*, published; NULL: no rule

# One rule as it was given, for programs too varied for classes: scanned in order.
cdef struct filter_target_t:
    ip_range_t addresses
    filter_ports_t ports

cdef struct filter_rule_t:
    uint64_t protocols[4]
    int family
    uint32_t sources_at             # sorted disjoint ranges in filter_t.source_ranges
    uint32_t sources_n
    uint32_t targets_at
    uint32_t targets_n

cdef struct filter_t:
    lpm_t* sources                  # address -> source class of its family
    lpm_t* destinations             # address -> destination class << 1 | local
    void* tables[2]                 # filter_table_t* of IPv4 and IPv6, published
    int linear                      # use `rules` instead of the tables
    filter_rule_t* rules
    uint32_t rules_n
    ip_range_t* source_ranges
    filter_target_t* targets
    size_t bytes_n                  # allocated, the maps apart

# Protocols and ports that a group may reach, and where.
cdef class Target:
    cdef int bit
    cdef dict places                # prefix -> how many rules say so

# A list of sources that some rules share.
cdef class Group:
    cdef tuple sources
    cdef int bit
    cdef int rules
    cdef dict targets               # (protocols, first port, last port) -> Target

# A rule, checked.
cdef class Rule:
    cdef object given
    cdef tuple sources, targets
    cdef frozenset protocols
    cdef Group group

# What a change has to do: for each family, masks to join into those of prefixes and masks to take out.
cdef class Work:
    cdef tuple more_sources, more_destinations, less_sources, less_destinations
    cdef object reach               # mask of the groups with new targets
    cdef list over                  # (group, target) whose bits nobody has afterwards; target -1: the group itself

# The rules behind a program; owns it. Arguments as documented in filter.pyi.
cdef class RuleSet:
    cdef filter_t* c
    cdef object verdicts            # Verdicts
    cdef list families              # Family of IPv4 and IPv6
    cdef dict taken                 # id of a rule as it was given -> Rule
    cdef dict groups                # list of sources -> Group
    cdef dict group_of              # id of such a list -> Group
    cdef dict reach                 # number of a group -> mask of its targets
    cdef set local                  # prefixes as keys
    cdef list free_bits, old_bits   # numbers of targets and groups: for reuse, and for reuse after `settle`
    cdef int bits
    cdef bint broken                # a change ended half way

    # Other rules from now on; False: that is no small change, and a new program is the better way (this one may hold
    # a part of the new rules by then). ValueError, with nothing changed, as for a new program.
    cdef bint change(self, rules, local) except -1
    # Every reader has passed a quiescent point since the last change.
    cdef int settle(self) except -1
    cdef dict shape(self)

    cdef int build(self, list rules) except -1
    cdef int build_linear(self, list rules) except -1
    cdef bint are_masks_large(self, spots) except -1
    cdef int new_bit(self) except -1
    cdef Group group(self, Rule rule, Work work)
    cdef int join(self, Rule rule, Work work) except -1
    cdef int leave(self, Rule rule, Work work) except -1
    cdef int spots(self) except -1
    cdef tuple with_other_sources(self, list gone, list came)
    cdef bint is_small(self, list gone, list came, list moves) except -1
    cdef int resource(self, Group group, tuple sources, set away, set more, Work work) except -1
    cdef int carry_out(self, Work work, list rules, set local) except -1
