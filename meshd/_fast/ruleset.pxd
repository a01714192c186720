"""The compiled form of packet filter rules and how it is built.

Addresses become classes: all addresses that the same rules name share one. Per pair of a source class and a destination
class there is one verdict, so a packet costs two prefix look-ups and one table entry however many rules there are.
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
    uint32_t ports_at[3]            # TCP, UDP, SCTP: sorted disjoint ranges in filter_t.ports
    uint32_t ports_n[3]

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
    lpm_t* sources                  # address -> source class
    lpm_t* destinations             # address -> destination class << 1 | local
    uint32_t source_classes
    uint32_t destination_classes    # class 0: no rule leads there
    uint32_t* pairs                 # [source class][destination class] -> verdict + 1, 0 for none; NULL: use rules
    filter_verdict_t* verdicts
    filter_ports_t* ports
    uint32_t verdicts_n
    size_t bytes_n
    filter_rule_t* rules
    uint32_t rules_n
    ip_range_t* source_ranges
    filter_target_t* targets

# Builds a program from rules and local networks as documented in filter.pyi; never NULL. Free with ruleset_free_c.
cdef filter_t* ruleset_build(rules, local) except NULL
cdef void ruleset_free_c(filter_t* program) noexcept nogil
