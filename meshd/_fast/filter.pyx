"""The packet filter; the contract is in filter.pyi, the C contract in filter.pxd."""
# freethreading: a Filter has one writer and readers without locks (ruleset.pxd); a FlowTable is made for many threads.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshd._fast.flow cimport flow_remember_c, flow_seen_c
from meshd._fast.hostroutes cimport load_acquire_ptr
from meshd._fast.ipprefix cimport address_load_c, ranges_find
from meshd._fast.lpm cimport lpm_lookup_c
from meshd._fast.packet cimport (
    FAST_DROP_EMPTY,
    FAST_OK,
    PROTO_FRAGMENT,
    PROTO_ICMP4,
    PROTO_ICMP6,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_TSMP,
    PROTO_UDP,
    PROTO_UNKNOWN,
    TCP_ACK,
    TCP_SYN,
    parse_c,
)
from meshd._fast.ruleset cimport (
    filter_ports_t,
    filter_rule_t,
    filter_table_t,
    filter_target_t,
    filter_verdict_t,
)

cdef extern from "address.h" nogil:
    uint32_t load_be32(const uint8_t* p)
    uint64_t load_be64(const uint8_t* p)

cdef extern from "atomic.h" nogil:
    void fence_acquire()

cdef enum:
    METADATA_SERVICE = 0xa9fea9fe       # 169.254.169.254, the one link-local destination clouds need

cdef enum match_t:
    MATCH_ADDRESSES = 0                 # ICMP: protocol and ports are ignored
    MATCH_PORT = 1
    MATCH_ALL_PORTS = 2


cdef inline int check_first(const packet_info_t* info) noexcept nogil:
    """The checks that both directions share; -1 when they give no verdict."""
    cdef uint32_t dst4
    cdef const uint8_t* dst = info.dst
    if info.proto == PROTO_UNKNOWN:
        return FILTER_DROP_UNKNOWN
    if info.version == 4:
        dst4 = load_be32(dst)
        if dst4 >> 28 == 0xe:
            return FILTER_DROP_MULTICAST
        if dst4 >> 16 == 0xa9fe and dst4 != METADATA_SERVICE:
            return FILTER_DROP_LINK_LOCAL
    else:
        if dst[0] == 0xff:
            return FILTER_DROP_MULTICAST
        if dst[0] == 0xfe and (dst[1] & 0xc0) == 0x80:
            return FILTER_DROP_LINK_LOCAL
        if load_be64(dst) == 0 and load_be32(dst + 8) == 0xffff:
            # IPv4-mapped: the same rules, lest a host unwrap it.
            dst4 = load_be32(dst + 12)
            if dst4 >> 28 == 0xe:
                return FILTER_DROP_MULTICAST
            if dst4 >> 16 == 0xa9fe:
                return FILTER_DROP_LINK_LOCAL
    if info.proto == PROTO_FRAGMENT:
        return FILTER_ACCEPT
    return -1


cdef inline bint ports_contain(const filter_ports_t* ports, uint32_t n, uint16_t port) noexcept nogil:
    """Whether one of n sorted disjoint ranges contains the port."""
    cdef uint32_t low = 0, high = n, middle
    while low < high:
        middle = (low + high) >> 1
        if port < ports[middle].first:
            high = middle
        elif port > ports[middle].last:
            low = middle + 1
        else:
            return True
    return False


cdef inline bint has_protocol(const uint64_t* bitmap, uint8_t proto) noexcept nogil:
    return (bitmap[proto >> 6] >> (proto & 63)) & 1


cdef bint scan_rules(const filter_t* program, const packet_info_t* info, match_t how) noexcept nogil:
    """Rule by rule, for programs without a pair table."""
    cdef uint64_t src_hi = 0, src_lo = 0, dst_hi = 0, dst_lo = 0
    cdef const filter_rule_t* rule
    cdef const filter_target_t* target
    cdef uint32_t i, j
    address_load_c(info.src, info.version, &src_hi, &src_lo)
    address_load_c(info.dst, info.version, &dst_hi, &dst_lo)
    for i in range(program.rules_n):
        rule = &program.rules[i]
        if rule.family != info.version:
            continue
        if how != MATCH_ADDRESSES and not has_protocol(rule.protocols, info.proto):
            continue
        if ranges_find(&program.source_ranges[rule.sources_at], rule.sources_n, src_hi, src_lo) < 0:
            continue
        for j in range(rule.targets_n):
            target = &program.targets[rule.targets_at + j]
            if ranges_find(&target.addresses, 1, dst_hi, dst_lo) < 0:
                continue
            if how == MATCH_ADDRESSES:
                return True
            if how == MATCH_PORT:
                if target.ports.first <= info.dst_port <= target.ports.last:
                    return True
            elif target.ports.first == 0 and target.ports.last == 0xffff:
                return True
    return False


cdef inline bint rules_match(const filter_t* program, uint32_t destination, const packet_info_t* info,
                             match_t how) noexcept nogil:
    cdef int32_t source
    cdef const filter_table_t* table
    cdef const filter_verdict_t* verdict
    cdef int kind
    if program.linear:
        return scan_rules(program, info, how)
    source = lpm_lookup_c(program.sources, info.src, info.version)
    if source < 0:
        return False
    fence_acquire()  # a table that was published before the classes were
    table = <const filter_table_t*>load_acquire_ptr(&program.tables[info.version == 6])
    verdict = <const filter_verdict_t*>load_acquire_ptr(&table.cells[<size_t>source * table.columns + destination])
    if verdict == NULL:
        return False
    if how == MATCH_ADDRESSES:
        return True
    if has_protocol(verdict.whole, info.proto):
        return True
    if how == MATCH_ALL_PORTS:
        return False
    kind = 0 if info.proto == PROTO_TCP else 1 if info.proto == PROTO_UDP else 2
    return ports_contain(&verdict.ports[verdict.ports_at[kind]], verdict.ports_n[kind], info.dst_port)


cdef inline bint icmp_answer(const packet_info_t* info) noexcept nogil:
    """Echo replies and errors, with at least the 8 bytes that such messages have."""
    if info.total_bytes - info.l4_offset < 8:
        return False
    if info.version == 4:
        return (info.icmp_type == 0 and info.icmp_code == 0) or info.icmp_type in (3, 11, 12)
    return (info.icmp_type == 129 and info.icmp_code == 0) or info.icmp_type in (1, 2, 3, 4)


cdef int filter_in_c(const filter_t* program, flow_table_t* flows, const packet_info_t* info) noexcept nogil:
    cdef int verdict = check_first(info)
    cdef int32_t found
    cdef uint32_t destination
    cdef bint accepted
    if verdict >= 0:
        return verdict
    found = lpm_lookup_c(program.destinations, info.dst, info.version)
    if found < 0 or not found & 1:
        return FILTER_DROP_NOT_LOCAL
    destination = <uint32_t>found >> 1
    if info.proto == PROTO_TCP:
        accepted = (info.tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN or rules_match(
            program, destination, info, MATCH_PORT)
    elif info.proto == PROTO_UDP or info.proto == PROTO_SCTP:
        accepted = flow_seen_c(flows, info) or rules_match(program, destination, info, MATCH_PORT)
    elif info.proto == (PROTO_ICMP4 if info.version == 4 else PROTO_ICMP6):
        accepted = icmp_answer(info) or rules_match(program, destination, info, MATCH_ADDRESSES)
    elif info.proto == PROTO_TSMP:
        accepted = True
    else:
        accepted = rules_match(program, destination, info, MATCH_ALL_PORTS)
    return FILTER_ACCEPT if accepted else FILTER_DROP_RULES


cdef int filter_out_c(const filter_t* program, flow_table_t* flows, const packet_info_t* info) noexcept nogil:
    cdef int verdict = check_first(info)
    if verdict >= 0:
        return verdict
    if info.proto == PROTO_UDP or info.proto == PROTO_SCTP:
        flow_remember_c(flows, info)
    return FILTER_ACCEPT


cdef class Filter:
    """A filter program."""

    def __cinit__(self, rules, local):
        self.rules = RuleSet(rules, local)
        self.c = self.rules.c

    def change(self, rules, local):
        """Other rules and networks from now on; False when that needs a new program."""
        if self.published:
            raise RuntimeError("packet threads may be reading this program: use Plane.set_rules")
        if not self.rules.change(rules, local):
            return False
        self.rules.settle()
        return True

    def check_in(self, const uint8_t[::1] packet not None, FlowTable flows not None, /):
        """ACCEPT or the DROP_ reason for a packet from a peer."""
        return check(self, packet, flows, False)

    def check_out(self, const uint8_t[::1] packet not None, FlowTable flows not None, /):
        """ACCEPT or the DROP_ reason for a packet to a peer; remembers its reverse flow."""
        return check(self, packet, flows, True)

    def shape(self):
        """Sizes of the compiled program."""
        return self.rules.shape()


cdef int check(Filter program, const uint8_t[::1] packet, FlowTable flows, bint outbound) noexcept:
    cdef packet_info_t info
    cdef int status = parse_c(&packet[0] if packet.shape[0] else NULL, packet.shape[0], &info)
    if status == FAST_DROP_EMPTY:
        return FILTER_ACCEPT
    if status != FAST_OK:
        return FILTER_DROP_SHORT
    if outbound:
        return filter_out_c(program.c, flows.c, &info)
    return filter_in_c(program.c, flows.c, &info)


ACCEPT = FILTER_ACCEPT
DROP_SHORT = FILTER_DROP_SHORT
DROP_UNKNOWN = FILTER_DROP_UNKNOWN
DROP_MULTICAST = FILTER_DROP_MULTICAST
DROP_LINK_LOCAL = FILTER_DROP_LINK_LOCAL
DROP_NOT_LOCAL = FILTER_DROP_NOT_LOCAL
DROP_RULES = FILTER_DROP_RULES
RESULT_NAMES = ("accept", "short", "unknown", "multicast", "link_local", "not_local", "rules")

# A cimported type is no Python name of this module by itself.
globals()["FlowTable"] = FlowTable
