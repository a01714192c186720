"""Classes of addresses and the table of their pairs; the contract is in ruleclasses.pxd."""
# freethreading: one writer; readers see the maps and the published table only.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from meshd._fast.hostroutes cimport store_release_ptr
from meshd._fast.ipprefix cimport address_load_c, equal_bits
from meshd._fast.lpm cimport LPM_OK, lpm_get_c, lpm_insert_c, lpm_remove_c
from meshd._fast.ruleset cimport filter_verdict_t
from meshd._fast.ruleverdicts cimport bit_numbers

cdef extern from "atomic.h" nogil:
    void fence_release()

cdef enum:
    PAIRS_LIMIT = 1 << 18               # classes times classes: 2 MiB, some ten ms to compile

cdef list LENGTHS = [bytes([n]) for n in range(129)]


cdef bytes key_of(bytes address, int bits):
    return address + <bytes>LENGTHS[bits]


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


cdef inline size_t table_bytes(size_t rows, size_t columns) noexcept:
    return sizeof(filter_table_t) + rows * columns * sizeof(void*)


class TooVaried(Exception):
    """More pairs of classes than a table holds."""


cdef class Side:
    def __cinit__(self):
        self.masks, self.own, self.parents, self.holders, self.children = [], [], [], [], []
        self.known = {}
        self.free_numbers, self.old = [], []

    cdef int number_of(self, bytes key) noexcept:
        """The class of exactly this prefix."""
        cdef const uint8_t* raw = <const uint8_t*><const char*>key
        cdef int32_t value = lpm_get_c(self.map, raw, self.version, raw[len(key) - 1])
        return value if value < 0 else value >> self.marked

    cdef object own_mask(self, bytes key):
        cdef int number = self.number_of(key)
        return 0 if number < 0 else self.own[number]

    cdef int around(self, bytes key) noexcept:
        """The class of the nearest prefix around this one."""
        cdef const uint8_t* raw = <const uint8_t*><const char*>key
        cdef int bits = raw[len(key) - 1] - 1
        cdef int32_t value
        while bits >= 0:
            if self.lengths[bits]:
                value = lpm_get_c(self.map, raw, self.version, bits)
                if value >= 0:
                    return value >> self.marked
            bits -= 1
        return -1

    cdef int put(self, bytes key, int number) except -1:
        """Publish the class of a prefix."""
        cdef const uint8_t* raw = <const uint8_t*><const char*>key
        cdef int bits = raw[len(key) - 1]
        cdef int32_t value = (number << 1 | <int>(self.masks[number] & 1)) if self.marked else number
        cdef int status
        fence_release()  # what the number stands for is there before anybody finds the number
        status = lpm_insert_c(self.map, raw, self.version, bits, value)
        if status < 0:
            raise MemoryError
        if status == LPM_OK:
            self.lengths[bits] += 1
        self.holders[number] += 1
        return 0

    cdef int take(self, bytes key) noexcept:
        """Take a prefix out of the map."""
        cdef const uint8_t* raw = <const uint8_t*><const char*>key
        cdef int bits = raw[len(key) - 1]
        if lpm_remove_c(self.map, raw, self.version, bits) == LPM_OK:
            self.lengths[bits] -= 1
        return 0

    cdef bint has_longer(self, bytes key) noexcept:
        cdef int bits
        for bits in range(<uint8_t>key[len(key) - 1] + 1, 129):
            if self.lengths[bits]:
                return True
        return False

    cdef int number(self, own, int parent) except -1:
        """A number for a new class; nobody finds it yet."""
        cdef int number
        mask = own if parent < 0 else own | self.masks[parent]
        if self.free_numbers:
            number = self.free_numbers.pop()
            self.masks[number], self.own[number], self.parents[number] = mask, own, parent
            self.holders[number] = self.children[number] = 0
        else:
            number = len(self.masks)
            self.masks.append(mask)
            self.own.append(own)
            self.parents.append(parent)
            self.holders.append(0)
            self.children.append(0)
        self.known.setdefault((own, parent), number)
        if parent >= 0:
            self.children[parent] += 1
        return number

    cdef int drop(self, int number) except -1:
        """A prefix gave up the class; a class without prefixes and classes below it is over."""
        self.holders[number] -= 1
        self.retire(number)
        return 0

    cdef int retire(self, int number) except -1:
        cdef int parent
        while number >= 0 and not self.holders[number] and not self.children[number]:
            parent = self.parents[number]
            self.forget(number)
            self.old.append(number)
            if parent >= 0:
                self.children[parent] -= 1
            number = parent
        return 0

    cdef int forget(self, int number) except -1:
        """Nobody else gets this class from now on."""
        name = (self.own[number], self.parents[number])
        if self.known.get(name) == number:
            del self.known[name]
        return 0


cdef class Family:
    def __cinit__(self):
        self.sources, self.destinations = Side(), Side()
        self.destinations.marked = True
        self.reached = {}
        self.old_tables = []

    def __dealloc__(self):
        free(self.table)
        if self.old_tables is not None:
            for at in self.old_tables:
                free(<void*><size_t>at)

    # -- a new program

    cdef int load(self, Side side, dict masks) except -1:
        cdef dict by_length = {}
        cdef bytes key, root = bytes(5 if side.version == 4 else 17)
        masks.setdefault(root, 0)
        for key in masks:
            by_length.setdefault(key[len(key) - 1], []).append(key)
        for bits in sorted(by_length):
            for key in by_length[bits]:
                own = masks[key]
                parent = side.around(key)
                number = side.known.get((own, parent))
                side.put(key, side.number(own, parent) if number is None else number)
        return 0

    cdef bint fill(self) except -1:
        cdef size_t rows = len(self.sources.masks), columns = len(self.destinations.masks)
        cdef int number
        if rows * columns > PAIRS_LIMIT:
            return False
        self.slot[0] = self.table = self.new_table(rows + rows // 4 + 8, columns + columns // 4 + 8)
        for number in range(<int>rows):
            self.judge_row(number)
        return True

    cdef filter_table_t* new_table(self, size_t rows, size_t columns) except NULL:
        cdef filter_table_t* table = <filter_table_t*>calloc(1, table_bytes(rows, columns))
        if table == NULL:
            raise MemoryError
        table.rows = <uint32_t>rows
        table.columns = <uint32_t>columns
        self.verdicts.program.bytes_n += table_bytes(rows, columns)
        return table

    # -- pairs

    cdef int judge(self, int source, int destination) except -1:
        cdef filter_table_t* table = self.table
        cdef void** cell = &table.cells[<size_t>source * table.columns + destination]
        cdef void* old = cell[0]
        cdef void* new = NULL
        targets = self.reached.get(source)
        if targets is None:
            targets = 0
            for group in bit_numbers(self.sources.masks[source]):
                targets |= self.reach.get(group, 0)
            self.reached[source] = targets
        common = (self.destinations.masks[destination] >> 1) & targets
        if common:
            new = self.verdicts.find(common)
        if new != old:
            store_release_ptr(cell, new)
            self.verdicts.shown(<filter_verdict_t*>new, <filter_verdict_t*>old)
        return 0

    cdef int judge_row(self, int source) except -1:
        cdef int destination
        for destination in range(<int>len(self.destinations.masks)):
            if self.destinations.masks[destination] is not None:
                self.judge(source, destination)
        return 0

    cdef int judge_class(self, Side side, int number) except -1:
        """All pairs of a class, with the retired ones of the other side as well: a reader may hold one."""
        cdef int source
        if side is self.sources:
            self.reached.pop(number, None)
            return self.judge_row(number)
        for source in range(<int>len(self.sources.masks)):
            if self.sources.masks[source] is not None:
                self.judge(source, number)
        return 0

    cdef int clear(self, Side side, int number) except -1:
        """No cell of a class that is over shows a verdict."""
        cdef filter_table_t* table = self.table
        cdef bint row = side is self.sources
        cdef size_t i, at
        for i in range(table.columns if row else table.rows):
            at = number * <size_t>table.columns + i if row else i * table.columns + number
            if table.cells[at] != NULL:
                self.verdicts.shown(NULL, <filter_verdict_t*>table.cells[at])
                table.cells[at] = NULL
        return 0

    cdef int make_room(self) except -1:
        """A table with a cell for every pair of numbers."""
        cdef filter_table_t* old = self.table
        cdef filter_table_t* table
        cdef size_t rows = len(self.sources.masks), columns = len(self.destinations.masks), i
        if rows * columns > PAIRS_LIMIT:
            raise TooVaried
        if rows <= old.rows and columns <= old.columns:
            return 0
        rows = old.rows if rows <= old.rows else rows + rows // 4 + 8
        columns = old.columns if columns <= old.columns else columns + columns // 4 + 8
        table = self.new_table(rows, columns)
        for i in range(<size_t>old.rows * old.columns):
            table.cells[i // old.columns * columns + i % old.columns] = old.cells[i]
        store_release_ptr(self.slot, table)
        self.table = table
        self.old_tables.append(<size_t>old)
        return 0

    # -- changes

    cdef int class_of(self, Side side, own, int parent) except -1:
        cdef int number
        known = side.known.get((own, parent))
        if known is not None:
            return known
        number = side.number(own, parent)
        self.make_room()
        self.judge_class(side, number)
        return number

    cdef int move(self, Side side, bytes key, own, inside) except -1:
        cdef int number = side.number_of(key), parent, new
        cdef list below
        if number < 0:
            if own:
                below = inside(key) if side.has_longer(key) else []
                side.put(key, self.class_of(side, own, side.around(key)))
                self.relabel(side, below)
            return 0
        before = side.own[number]
        if own == before:
            return 0
        parent = side.parents[number]
        if not own and parent >= 0:
            below = inside(key) if side.children[number] else []
            side.take(key)
            self.relabel(side, below)
            return side.drop(number)
        known = side.known.get((own, parent))
        if side.holders[number] == 1 and not (own ^ before) & side.marked and (
                known is None or side.children[number]):
            return self.rewrite(side, number, own)
        below = inside(key) if side.children[number] else []
        new = self.class_of(side, own, parent)
        side.put(key, new)
        self.relabel(side, below)
        return side.drop(number)

    cdef int rewrite(self, Side side, int number, own) except -1:
        """Another mask for a class that one prefix has, and for the classes below it."""
        cdef int other
        side.forget(number)
        side.own[number] = own
        side.known.setdefault((own, side.parents[number]), number)
        cdef list stack = [number]
        while stack:
            number = stack.pop()
            parent = side.parents[number]
            side.masks[number] = side.own[number] if parent < 0 else side.own[number] | side.masks[parent]
            self.judge_class(side, number)
            if side.children[number]:
                for other in range(<int>len(side.masks)):
                    if side.parents[other] == number and (side.holders[other] or side.children[other]):
                        stack.append(other)
        return 0

    cdef int relabel(self, Side side, list keys) except -1:
        """The prefixes around these are others now. Wider ones first."""
        cdef bytes key
        cdef int number, parent
        for key in sorted(keys):
            number = side.number_of(key)
            if number < 0:
                continue
            parent = side.around(key)
            if side.parents[number] != parent:
                side.put(key, self.class_of(side, side.own[number], parent))
                side.drop(number)
        return 0

    cdef int settle(self) except -1:
        cdef Side side
        cdef filter_table_t* table
        for side in (self.sources, self.destinations):
            for number in side.old:
                self.clear(side, number)
                side.masks[number] = None
                if not side.marked:
                    self.reached.pop(number, None)
            side.free_numbers += side.old
            side.old.clear()
        for at in self.old_tables:
            table = <filter_table_t*><size_t>at
            self.verdicts.program.bytes_n -= table_bytes(table.rows, table.columns)
            free(table)
        self.old_tables.clear()
        return 0

    cdef int reach_changed(self, groups) except -1:
        cdef int number
        if groups:
            for number in range(<int>len(self.sources.masks)):
                mask = self.sources.masks[number]
                if mask is not None and mask & groups:
                    self.reached.pop(number, None)
        return 0

    cdef int count(self, Side side) except -1:
        """How many classes some rule names."""
        return sum([1 for n, mask in enumerate(side.masks) if mask and side.holders[n]])
