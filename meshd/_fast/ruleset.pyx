"""Compilation of packet filter rules; the contract is in ruleset.pxd."""
# freethreading: no shared state; a program under construction belongs to its caller.

cimport cython
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

from meshd._fast.ipprefix cimport (
    Prefix,
    address_load_c,
    append_prefixes,
    equal_bits,
    family_of,
    range_from,
    ranges_normalise,
)
from meshd._fast.lpm cimport lpm_free_c, lpm_insert_c, lpm_new_c

cdef enum:
    PAIRS_LIMIT = 1 << 18               # entries of the pair table: 1 MiB, some ten ms to compile
    MASK_BITS_LIMIT = 1 << 27           # prefixes times bits of their masks while compiling: 16 MiB

cdef tuple PORT_PROTOCOLS = (6, 17, 132)
cdef list LENGTHS = [bytes([n]) for n in range(129)]
cdef bytes HOST4 = LENGTHS[32]
cdef bytes HOST6 = LENGTHS[128]

# While compiling, a class is a bitmap in a Python int: of source lists for sources (rules often share one), of targets
# for destinations. A target is one (source list, protocols, first port, last port); what a source class may reach at a
# destination class is the targets in common.


cdef inline int width_of(int family):
    return 32 if family == 4 else 128


@cython.wraparound(True)
cdef dict nested_masks(dict own):
    """Each prefix's mask joined with those of the prefixes around it. Keys are packed address and length byte."""
    cdef dict out = {}
    cdef list around = []               # (key, mask) from the widest to the narrowest
    cdef bytes key
    cdef tuple above
    # By family, then address, then length: whatever contains a prefix comes before it.
    for key in sorted(sorted(own), key=len):
        mask = own[key]
        while around:
            above = around[-1]
            if key_contains(above[0], key):
                mask = mask | above[1]
                break
            around.pop()
        around.append((key, mask))
        out[key] = mask
    return out


cdef bint key_contains(bytes outer, bytes inner):
    cdef const uint8_t* a = <const uint8_t*><const char*>outer
    cdef const uint8_t* b = <const uint8_t*><const char*>inner
    cdef uint64_t a_hi = 0, a_lo = 0, b_hi = 0, b_lo = 0
    cdef int size = len(outer) - 1, family = 4 if size == 4 else 6
    if len(inner) != len(outer) or a[size] > b[size]:
        return False
    address_load_c(a, family, &a_hi, &a_lo)
    address_load_c(b, family, &b_hi, &b_lo)
    return equal_bits(a_hi, a_lo, b_hi, b_lo) >= a[size]


cdef int add_range(dict own, bytes first, bytes last, object bit) except -1:
    """Joins bit into the mask of every prefix of the range."""
    cdef ip_range_t r
    cdef int family
    cdef list prefixes
    cdef Prefix prefix
    cdef bytes key
    if first == last:
        key = first + (HOST4 if family_of(first) == 4 else HOST6)
        mask = own.get(key)
        own[key] = bit if mask is None else mask | bit
        return 0
    family = range_from(&r, first, last)
    prefixes = []
    append_prefixes(prefixes, family, r)
    for prefix in prefixes:
        key = prefix.address + LENGTHS[prefix.bits]
        own[key] = own.get(key, 0) | bit
    return 0


cdef lpm_t* load_map(dict masks, dict values) except NULL:
    """A map from each prefix to the value of its mask."""
    cdef lpm_t* out = lpm_new_c()
    cdef const uint8_t* raw
    cdef bytes key
    cdef int size
    if out == NULL:
        raise MemoryError
    for key, mask in masks.items():
        raw = <const uint8_t*><const char*>key
        size = len(key) - 1
        if lpm_insert_c(out, raw, 4 if size == 4 else 6, raw[size], values[mask]) < 0:
            lpm_free_c(out)
            raise MemoryError
    return out


cdef list check_rules(rules):
    """The rules as (sources, targets, protocols) with ports and protocols checked."""
    cdef list out = []
    for sources, targets, protocols in rules:
        targets = tuple(targets)
        protocols = frozenset(protocols)
        for _, _, low, high in targets:
            if not 0 <= low <= high <= 0xffff:
                raise ValueError(f"ports {low}-{high} are not a range")
        for proto in protocols:
            if not 0 <= proto <= 255:
                raise ValueError(f"protocol {proto} does not exist")
        out.append((tuple(sources), targets, protocols))
    return out


@cython.wraparound(True)
cdef list joined_ranges(list spans):
    """Sorted disjoint port ranges."""
    cdef list out = []
    for first, last in sorted(spans):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(last, out[-1][1]))
        else:
            out.append((first, last))
    return out


cdef list bit_numbers(mask):
    cdef list out = []
    while mask:
        low = mask & -mask
        out.append(low.bit_length() - 1)
        mask ^= low
    return out


cdef void set_protocol(uint64_t* bitmap, int proto) noexcept nogil:
    bitmap[proto >> 6] |= <uint64_t>1 << (proto & 63)


cdef void* zeroed(filter_t* program, size_t count, size_t size) except NULL:
    cdef void* out = calloc(count or 1, size)
    if out == NULL:
        raise MemoryError
    program.bytes_n += (count or 1) * size
    return out


cdef list load_destinations(filter_t* program, dict masks):
    """Fills the destination map; gives the targets of each class. Class 0 is without targets."""
    cdef dict values = {}, classes = {0: 0}
    for mask in masks.values():
        number = classes.setdefault(mask >> 1, len(classes))
        values[mask] = number << 1 | (mask & 1)
    program.destinations = load_map(masks, values)
    program.destination_classes = len(classes)
    program.bytes_n += program.destinations.memory.bytes
    return list(classes)


cdef bint load_pairs(filter_t* program, dict sources, list destinations, list targets) except -1:
    """Fills the source map, the pair table and the verdicts; False when the table would be too large."""
    cdef dict classes = {}, numbers = {}, reach = {}
    cdef list masks = []
    cdef uint32_t* pairs
    cdef size_t at = 0
    for mask in sources.values():
        classes.setdefault(mask, len(classes))
    if len(classes) * len(destinations) > PAIRS_LIMIT:
        return False
    for bit, target in enumerate(targets):
        reach[target[0]] = reach.get(target[0], 0) | 1 << bit
    pairs = <uint32_t*>zeroed(program, len(classes) * len(destinations), sizeof(uint32_t))
    program.pairs = pairs
    for mask in classes:
        reachable = 0
        for group in bit_numbers(mask):
            reachable |= reach.get(group, 0)
        for wanted in destinations:
            common = wanted & reachable
            if common:
                number = numbers.get(common)
                if number is None:
                    masks.append(common)
                    number = numbers[common] = len(masks)
                pairs[at] = number
            at += 1
    program.sources = load_map(sources, classes)
    program.source_classes = len(classes)
    program.bytes_n += program.sources.memory.bytes
    load_verdicts(program, masks, targets)
    return True


cdef int load_verdicts(filter_t* program, list masks, list targets) except -1:
    cdef list ports = []
    cdef filter_verdict_t* verdict
    cdef int kind
    cdef size_t at = 0
    program.verdicts = <filter_verdict_t*>zeroed(program, len(masks), sizeof(filter_verdict_t))
    program.verdicts_n = len(masks)
    for mask in masks:
        verdict = &program.verdicts[at]
        at += 1
        spans = ([], [], [])
        for bit in bit_numbers(mask):
            _, protocols, low, high = targets[bit]
            for proto in protocols:
                if low == 0 and high == 0xffff:
                    set_protocol(verdict.whole, proto)
                elif proto in PORT_PROTOCOLS:
                    spans[PORT_PROTOCOLS.index(proto)].append((low, high))
        for kind in range(3):
            joined = joined_ranges(spans[kind])
            verdict.ports_at[kind] = len(ports)
            verdict.ports_n[kind] = len(joined)
            ports.extend(joined)
    program.ports = <filter_ports_t*>zeroed(program, len(ports), sizeof(filter_ports_t))
    at = 0
    for low, high in ports:
        program.ports[at].first = low
        program.ports[at].last = high
        at += 1
    return 0


cdef int load_rules(filter_t* program, list rules) except -1:
    """The form that is scanned rule by rule: one entry per rule and family."""
    cdef size_t sources_n = sum(len(rule[0]) for rule in rules), targets_n = sum(len(rule[1]) for rule in rules)
    cdef uint32_t source_at = 0, target_at = 0
    cdef filter_rule_t* entry
    cdef filter_target_t* target
    cdef int family
    cdef ip_range_t r
    for sources, targets, _ in rules:
        for first, last in sources:
            range_from(&r, first, last)
        for first, last, _, _ in targets:
            range_from(&r, first, last)
    program.rules = <filter_rule_t*>zeroed(program, 2 * len(rules), sizeof(filter_rule_t))
    program.source_ranges = <ip_range_t*>zeroed(program, sources_n, sizeof(ip_range_t))
    program.targets = <filter_target_t*>zeroed(program, targets_n, sizeof(filter_target_t))
    for sources, targets, protocols in rules:
        for family in (4, 6):
            entry = &program.rules[program.rules_n]
            program.rules_n += 1
            entry.family = family
            entry.sources_at = source_at
            entry.targets_at = target_at
            for proto in protocols:
                set_protocol(entry.protocols, proto)
            for first, last in sources:
                if len(first) * 8 == width_of(family):
                    range_from(&program.source_ranges[source_at], first, last)
                    source_at += 1
            entry.sources_n = ranges_normalise(
                &program.source_ranges[entry.sources_at], source_at - entry.sources_at)
            for first, last, low, high in targets:
                if len(first) * 8 == width_of(family):
                    target = &program.targets[target_at]
                    range_from(&target.addresses, first, last)
                    target.ports.first = low
                    target.ports.last = high
                    target_at += 1
            entry.targets_n = target_at - entry.targets_at
    return 0


cdef int build(filter_t* program, list rules, local) except -1:
    cdef dict sources = {}, destinations = {}
    cdef dict groups = {}               # source list -> bit number
    cdef dict targets = {}              # (source list's number, protocols, first port, last port) -> bit number
    cdef list classes
    cdef Prefix prefix
    cdef bint linear
    for spans, wanted, protocols in rules:
        group = groups.setdefault(spans, len(groups))
        for _, _, low, high in wanted:
            targets.setdefault((group, protocols, low, high), len(targets))
    linear = (sum(map(len, groups)) * len(groups)
              + sum(len(rule[1]) for rule in rules) * len(targets) > MASK_BITS_LIMIT)
    if not linear:
        for spans, group in groups.items():
            for first, last in spans:
                add_range(sources, first, last, 1 << group)
        for spans, wanted, protocols in rules:
            group = groups[spans]
            for first, last, low, high in wanted:
                # Bit 0 marks local destinations.
                add_range(destinations, first, last, 2 << targets[group, protocols, low, high])
    for address, bits in local:
        prefix = Prefix.masked(address, bits)
        add_range(destinations, prefix.address, prefix.last, 1)
    classes = load_destinations(program, nested_masks(destinations))
    if linear or not load_pairs(program, nested_masks(sources), classes, list(targets)):
        load_rules(program, rules)
    return 0


cdef filter_t* ruleset_build(rules, local) except NULL:
    cdef filter_t* program = <filter_t*>calloc(1, sizeof(filter_t))
    if program == NULL:
        raise MemoryError
    program.bytes_n = sizeof(filter_t)
    try:
        build(program, check_rules(rules), local)
    except BaseException:
        ruleset_free_c(program)
        raise
    return program


cdef void ruleset_free_c(filter_t* program) noexcept nogil:
    if program == NULL:
        return
    lpm_free_c(program.sources)
    lpm_free_c(program.destinations)
    free(program.pairs)
    free(program.verdicts)
    free(program.ports)
    free(program.rules)
    free(program.source_ranges)
    free(program.targets)
    free(program)
