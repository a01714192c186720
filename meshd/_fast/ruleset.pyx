"""Packet filter rules behind a program; the contract is in ruleset.pxd."""
# freethreading: a rule set belongs to one thread; what others read is published (ruleclasses.pyx).

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from meshd._fast.ipprefix cimport Prefix, append_prefixes, family_of, range_from, ranges_normalise
from meshd._fast.lpm cimport lpm_free_c, lpm_new_c, lpm_reclaim_c
from meshd._fast.ruleclasses cimport Family, Side, key_contains, key_of
from meshd._fast.ruleverdicts cimport Verdicts

from meshd._fast.ruleclasses import TooVaried

cdef enum:
    MASK_BITS_LIMIT = 1 << 27           # prefixes times bits of their masks: 16 MiB
    SMALL = 256                         # a change of so many prefixes is always small


cdef class Target:
    def __cinit__(self, int bit):
        self.bit = bit
        self.places = {}


cdef class Group:
    def __cinit__(self, tuple sources, int bit):
        self.sources = sources
        self.bit = bit
        self.targets = {}


cdef class Rule:
    def __cinit__(self, given):
        cdef ip_range_t r
        sources, targets, protocols = given
        self.given = given
        self.sources, self.targets, self.protocols = tuple(sources), tuple(targets), frozenset(protocols)
        for first, last in self.sources:
            range_from(&r, first, last)
        for first, last, low, high in self.targets:
            range_from(&r, first, last)
            if not 0 <= low <= high <= 0xffff:
                raise ValueError(f"ports {low}-{high} are not a range")
        for proto in self.protocols:
            if not 0 <= proto <= 255:
                raise ValueError(f"protocol {proto} does not exist")


cdef class Work:
    def __cinit__(self):
        self.more_sources, self.more_destinations = ({}, {}), ({}, {})
        self.less_sources, self.less_destinations = ({}, {}), ({}, {})
        self.over = []
        self.reach = 0


cdef list keys_of(bytes first, bytes last):
    """The prefixes of a range."""
    cdef ip_range_t r
    cdef list prefixes = []
    cdef Prefix prefix
    if first == last:
        return [key_of(first, 32 if family_of(first) == 4 else 128)]
    append_prefixes(prefixes, range_from(&r, first, last), r)
    return [key_of(prefix.address, prefix.bits) for prefix in prefixes]


cdef inline object bit_of(int number):
    """As a Python int: there are more than a C integer holds."""
    cdef object one = 1
    return one << number


cdef inline int join_masks(tuple masks, bytes key, bit) except -1:
    cdef dict own = masks[len(key) == 17]
    mask = own.get(key)
    own[key] = bit if mask is None else mask | bit
    return 0


cdef tuple difference(tuple old, tuple new):
    """What two lists of ranges differ in: (prefixes that are gone, that came). Lists are much alike as a rule."""
    cdef Py_ssize_t head = 0, tail = 0, shorter = min(len(old), len(new))
    while head < shorter and (old[head] is new[head] or old[head] == new[head]):
        head += 1
    while tail < shorter - head:
        a, b = old[len(old) - 1 - tail], new[len(new) - 1 - tail]
        if a is not b and a != b:
            break
        tail += 1
    before, after = set(old[head:len(old) - tail]), set(new[head:len(new) - tail])
    gone = {key for first, last in before - after for key in keys_of(first, last)}
    came = {key for first, last in after - before for key in keys_of(first, last)}
    if gone:  # another item may name the same prefix
        starts = {key[:len(key) - 1] for key in gone}
        for first, last in new:
            if first in starts or not (first is last or first == last):
                gone.difference_update(keys_of(first, last))
    return gone, came


cdef class RuleSet:
    def __cinit__(self, rules, local):
        cdef filter_t* program
        cdef Family family
        cdef Side side
        cdef int i
        self.c = program = <filter_t*>calloc(1, sizeof(filter_t))
        if program == NULL:
            raise MemoryError
        program.bytes_n = sizeof(filter_t)
        self.verdicts = Verdicts()
        (<Verdicts>self.verdicts).program = program
        self.groups, self.group_of, self.reach, self.taken = {}, {}, {}, {}
        self.free_bits, self.old_bits = [], []
        self.families = []
        program.sources, program.destinations = lpm_new_c(), lpm_new_c()
        if program.sources == NULL or program.destinations == NULL:
            raise MemoryError
        for i in range(2):
            family = Family()
            family.slot = &program.tables[i]
            family.verdicts = self.verdicts
            family.reach = self.reach
            for side in (family.sources, family.destinations):
                side.version = 6 if i else 4
                side.map = program.destinations if side.marked else program.sources
            self.families.append(family)
        self.local = local_keys(local)
        self.build(list(rules))

    def __dealloc__(self):
        cdef filter_t* program = self.c
        if program == NULL:
            return
        # Tables are freed with their Family, verdicts with Verdicts; neither looks at the program for that.
        lpm_free_c(program.sources)
        lpm_free_c(program.destinations)
        free(program.rules)
        free(program.source_ranges)
        free(program.targets)
        free(program)

    # -- a new program

    cdef int build(self, list rules) except -1:
        cdef Work work = Work()
        cdef Rule rule
        cdef Family family
        cdef int i
        for given in rules:
            if id(given) not in self.taken:  # saying a thing twice says no more
                self.taken[id(given)] = rule = Rule(given)
                self.join(rule, work)
        for key in self.local:
            join_masks(work.more_destinations, key, 1)
        self.c.linear = self.are_masks_large(len(work.more_destinations[0]) + len(work.more_destinations[1]))
        for i in range(2):
            family = self.families[i]
            if not self.c.linear:
                family.load(family.sources, work.more_sources[i])
                family.load(family.destinations, work.more_destinations[i])
                self.c.linear = not family.fill()
        if self.c.linear:
            self.build_linear(list(self.taken.values()))
        self.settle()
        return 0

    cdef bint are_masks_large(self, spots) except -1:
        """Whether the masks of all prefixes, ``spots`` of them destinations, take too much memory."""
        cdef Group group
        sources = sum([len(group.sources) for group in self.groups.values()])
        return sources * len(self.groups) + spots * len((<Verdicts>self.verdicts).targets) > MASK_BITS_LIMIT

    cdef int build_linear(self, list rules) except -1:
        """Without classes: the map of destinations says only what is local."""
        cdef Family family
        cdef Side side
        cdef tuple masks = ({}, {})
        cdef int i
        lpm_free_c(self.c.sources)
        lpm_free_c(self.c.destinations)
        self.c.sources, self.c.destinations = lpm_new_c(), lpm_new_c()
        if self.c.sources == NULL or self.c.destinations == NULL:
            raise MemoryError
        for key in self.local:
            join_masks(masks, key, 1)
        for i in range(2):
            family = self.families[i]
            side = Side()
            side.map, side.version, side.marked = self.c.destinations, family.destinations.version, True
            family.load(side, masks[i])
        self.families, self.groups, self.group_of, self.taken = [], {}, {}, {}
        load_rules(self.c, rules)
        return 0

    cdef int new_bit(self) except -1:
        if self.free_bits:
            return self.free_bits.pop()
        self.bits += 1
        return self.bits - 1

    cdef Group group(self, Rule rule, Work work):
        cdef Group group = self.group_of.get(id(rule.sources)) or self.groups.get(rule.sources)
        if group is None:
            group = Group(rule.sources, self.new_bit())
            self.groups[group.sources] = self.group_of[id(group.sources)] = group
            bit = bit_of(group.bit)
            for first, last in group.sources:
                for key in keys_of(first, last):
                    join_masks(work.more_sources, key, bit)
        return group

    cdef int join(self, Rule rule, Work work) except -1:
        """One more rule."""
        cdef Group group = self.group(rule, work)
        cdef Verdicts verdicts = self.verdicts
        cdef Target target
        rule.group = group
        group.rules += 1
        for first, last, low, high in rule.targets:
            name = (rule.protocols, low, high)
            target = group.targets.get(name)
            if target is None:
                target = group.targets[name] = Target(self.new_bit())
                verdicts.targets[target.bit] = name
                self.reach[group.bit] = self.reach.get(group.bit, 0) | bit_of(target.bit)
                work.reach |= bit_of(group.bit)
            for key in keys_of(first, last):
                count = target.places.get(key, 0)
                target.places[key] = count + 1
                if not count:
                    join_masks(work.more_destinations, key, bit_of(target.bit + 1))
        return 0

    # -- changes

    cdef bint change(self, rules, local) except -1:
        cdef dict taken = {}
        cdef list gone, came = [], moves
        cdef Rule rule
        cdef Work work = Work()
        cdef set keys = local_keys(local)
        if self.c.linear or self.broken:
            return False
        for given in rules:
            if id(given) in taken:
                continue
            rule = self.taken.get(id(given))
            if rule is None or not is_fixed(given):
                rule = Rule(given)
                came.append(rule)
            taken[id(given)] = rule
        gone = [rule for name, rule in self.taken.items() if name not in taken or taken[name] is not rule]
        gone, came, moves = self.with_other_sources(gone, came)
        if not self.is_small(gone, came, moves):
            return False
        self.broken = True
        before, self.taken = self.taken, taken
        for group, sources, away, more in moves:
            self.resource(group, sources, away, more, work)
        for rule in came:
            self.join(rule, work)
        for rule in gone:
            self.leave(rule, work)
        for key in keys - self.local:
            join_masks(work.more_destinations, key, 1)
        for key in self.local - keys:
            join_masks(work.less_destinations, key, 1)
        before_local, self.local = self.local, keys
        if self.are_masks_large(self.spots() + len(work.more_destinations[0]) + len(work.more_destinations[1])):
            return False
        try:
            self.carry_out(work, [*before.values(), *taken.values()], before_local | keys)
        except TooVaried:
            return False
        self.broken = False
        return True

    cdef int spots(self) except -1:
        """Destination prefixes."""
        cdef Family family
        cdef int count = 0, bits
        for family in self.families:
            for bits in range(129):
                count += family.destinations.lengths[bits]
        return count

    cdef tuple with_other_sources(self, list gone, list came):
        """Rules that are as before but for their sources.

        (rules that are gone for good, new rules, moves); a move is a group, its new list of sources, and the prefixes
        that leave and that join it.
        """
        cdef Rule rule
        cdef Group group
        cdef dict leaving = {}, coming = {}, fitting = {}
        cdef list moves = []
        for rule in gone:
            leaving.setdefault(rule.group.bit, []).append(rule)
        for rule in came:
            if id(rule.sources) not in self.group_of and rule.sources not in self.groups:
                coming.setdefault(rule.sources, []).append(rule)
        for some in leaving.values():
            group = (<Rule>some[0]).group
            if group.rules == len(some):
                fitting.setdefault(what_for(some), []).append(some)
        done = set()
        for sources, some in coming.items():
            others = fitting.get(what_for(some))
            if not others:
                continue
            before = others.pop(0)
            group = (<Rule>before[0]).group
            for rule in some:
                rule.group = group  # whose targets are counted already: they are the same
            done.update(map(id, some))
            done.update(map(id, before))
            moves.append((group, sources, *difference(group.sources, sources)))
        return [rule for rule in gone if id(rule) not in done], [rule for rule in came if id(rule) not in done], moves

    cdef bint is_small(self, list gone, list came, list moves) except -1:
        """Whether a change touches fewer prefixes than a new program has."""
        cdef Rule rule
        cdef Group group
        cdef dict lists = {}
        for rule in [*gone, *came]:
            lists[id(rule.sources)] = len(rule.sources)
        touched = sum(lists.values()) + sum([len(away) + len(more) for _, _, away, more in moves])
        return touched <= SMALL or 2 * touched <= sum([len(group.sources) for group in self.groups.values()])

    cdef int resource(self, Group group, tuple sources, set away, set more, Work work) except -1:
        """Other sources for the rules of a group."""
        del self.groups[group.sources]
        del self.group_of[id(group.sources)]
        for key in more:
            join_masks(work.more_sources, key, bit_of(group.bit))
        for key in away:
            join_masks(work.less_sources, key, bit_of(group.bit))
        group.sources = sources
        self.groups[sources] = self.group_of[id(sources)] = group
        return 0

    cdef int leave(self, Rule rule, Work work) except -1:
        """One rule less."""
        cdef Group group = rule.group
        cdef Target target
        group.rules -= 1
        for first, last, low, high in rule.targets:
            name = (rule.protocols, low, high)
            target = group.targets[name]
            for key in keys_of(first, last):
                target.places[key] -= 1
                if not target.places[key]:
                    del target.places[key]
                    join_masks(work.less_destinations, key, bit_of(target.bit + 1))
            if not target.places:
                del group.targets[name]
                work.over.append((group.bit, target.bit))
        if not group.rules:
            del self.groups[group.sources]
            del self.group_of[id(group.sources)]
            for first, last in group.sources:
                for key in keys_of(first, last):
                    join_masks(work.less_sources, key, bit_of(group.bit))
            work.over.append((group.bit, -1))
        return 0

    cdef int carry_out(self, Work work, list rules, set local) except -1:
        """First whatever lets more in, then whatever lets less in; a group's or target's bit is free afterwards."""
        cdef Family family
        cdef int i

        def of_sources(key):
            return sources_inside(rules, key)

        def of_destinations(key):
            return destinations_inside(rules, local, key)

        for i in range(2):
            family = self.families[i]
            family.reach_changed(work.reach)
            for key, mask in work.more_destinations[i].items():
                family.move(family.destinations, key, family.destinations.own_mask(key) | mask, of_destinations)
            for key, mask in work.more_sources[i].items():
                family.move(family.sources, key, family.sources.own_mask(key) | mask, of_sources)
            for key, mask in work.less_destinations[i].items():
                family.move(family.destinations, key, family.destinations.own_mask(key) & ~mask, of_destinations)
            for key, mask in work.less_sources[i].items():
                family.move(family.sources, key, family.sources.own_mask(key) & ~mask, of_sources)
        groups = 0
        for group, target in work.over:
            if target < 0:
                self.reach.pop(group, None)
                self.old_bits.append(group)
            else:
                self.reach[group] = self.reach.get(group, 0) & ~bit_of(target)
                self.old_bits.append(target)
                groups |= bit_of(group)
        for family in self.families:
            family.reach_changed(groups)
        return 0

    cdef int settle(self) except -1:
        cdef Family family
        cdef Verdicts verdicts = self.verdicts
        if not self.c.linear:
            for family in self.families:
                family.settle()
        over = 0
        for bit in self.old_bits:
            over |= bit_of(bit)
        verdicts.settle(over)
        self.free_bits += self.old_bits
        self.old_bits.clear()
        lpm_reclaim_c(self.c.sources)
        lpm_reclaim_c(self.c.destinations)
        return 0

    cdef dict shape(self):
        cdef Family family
        cdef bint classes = not self.c.linear
        return {
            "source_classes": sum([family.count(family.sources) for family in self.families if classes]),
            "destination_classes": sum([family.count(family.destinations) for family in self.families if classes]),
            "verdicts": len((<Verdicts>self.verdicts).known) if classes else 0,
            "linear_rules": self.c.rules_n,
            "bytes": self.c.bytes_n + self.c.sources.memory.bytes + self.c.destinations.memory.bytes,
        }


cdef bint is_fixed(given):
    """Whether the same object is the same rule next time."""
    return type(given) is tuple and type(given[0]) is tuple and type(given[1]) is tuple and type(given[2]) is tuple


cdef frozenset what_for(list rules):
    """What the rules of a group let through and how often each says so, to be compared."""
    cdef Rule rule
    cdef dict counts = {}
    for rule in rules:
        name = (rule.protocols, rule.targets)
        counts[name] = counts.get(name, 0) + 1
    return frozenset(counts.items())


cdef set local_keys(local):
    cdef Prefix prefix
    cdef set out = set()
    for address, bits in local:
        prefix = Prefix.masked(address, bits)
        out.add(key_of(prefix.address, prefix.bits))
    return out


cdef list sources_inside(list rules, bytes outer):
    """The prefixes that some rule has as sources, within one."""
    cdef Rule rule
    cdef set out = set()
    seen = set()
    for rule in rules:
        if id(rule.sources) in seen:
            continue
        seen.add(id(rule.sources))
        for first, last in rule.sources:
            if len(first) == len(outer) - 1:
                for key in keys_of(first, last):
                    if key_contains(outer, key) and key != outer:
                        out.add(key)
    return list(out)


cdef list destinations_inside(list rules, set local, bytes outer):
    cdef Rule rule
    cdef set out = set()
    for rule in rules:
        for first, last, _, _ in rule.targets:
            out.update(keys_of(first, last))
    return [key for key in out | local if key_contains(outer, key) and key != outer]


# --- the form that is scanned rule by rule: one entry per rule and family ---------------------------------------------

cdef void* zeroed(filter_t* program, size_t count, size_t size) except NULL:
    cdef void* out = calloc(count or 1, size)
    if out == NULL:
        raise MemoryError
    program.bytes_n += (count or 1) * size
    return out


cdef int load_rules(filter_t* program, list rules) except -1:
    cdef size_t sources_n = sum([len((<Rule>rule).sources) for rule in rules])
    cdef size_t targets_n = sum([len((<Rule>rule).targets) for rule in rules])
    cdef uint32_t source_at = 0, target_at = 0
    cdef filter_rule_t* entry
    cdef filter_target_t* target
    cdef int family
    cdef size_t width
    cdef Rule rule
    program.rules = <filter_rule_t*>zeroed(program, 2 * len(rules), sizeof(filter_rule_t))
    program.source_ranges = <ip_range_t*>zeroed(program, sources_n, sizeof(ip_range_t))
    program.targets = <filter_target_t*>zeroed(program, targets_n, sizeof(filter_target_t))
    for rule in rules:
        for family in (4, 6):
            width = 4 if family == 4 else 16
            entry = &program.rules[program.rules_n]
            program.rules_n += 1
            entry.family = family
            entry.sources_at = source_at
            entry.targets_at = target_at
            for proto in rule.protocols:
                entry.protocols[<int>proto >> 6] |= <uint64_t>1 << (<int>proto & 63)
            for first, last in rule.sources:
                if <size_t>len(first) == width:
                    range_from(&program.source_ranges[source_at], first, last)
                    source_at += 1
            entry.sources_n = ranges_normalise(
                &program.source_ranges[entry.sources_at], source_at - entry.sources_at)
            for first, last, low, high in rule.targets:
                if <size_t>len(first) == width:
                    target = &program.targets[target_at]
                    range_from(&target.addresses, first, last)
                    target.ports.first = low
                    target.ports.last = high
                    target_at += 1
            entry.targets_n = target_at - entry.targets_at
    return 0
