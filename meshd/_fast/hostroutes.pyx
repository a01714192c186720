"""Host routes in hash tables; the contract is in hostroutes.pxd."""
# freethreading: no shared state; each table has one writer.

from libc.stdlib cimport calloc

cdef enum:
    HOSTS_MIN_BITS = 4


# --- IPv4 -------------------------------------------------------------------------------------------------------------

cdef inline size_t hosts4_bytes(uint64_t mask) noexcept nogil:
    return sizeof(hosts4_t) + (mask + 1) * sizeof(uint64_t)


cdef hosts4_t* hosts4_new(memory_t* memory, int bits) noexcept nogil:
    cdef uint64_t mask = (<uint64_t>1 << bits) - 1
    cdef hosts4_t* table = <hosts4_t*>calloc(1, hosts4_bytes(mask))
    if table == NULL:
        return NULL
    table.mask = mask
    table.shift = 64 - bits
    table.seed = <uint32_t>memory.seed
    table.slots = <uint64_t*>(<char*>table + sizeof(hosts4_t))
    memory.bytes += hosts4_bytes(mask)
    return table


cdef inline void hosts4_place(hosts4_t* table, uint64_t word) noexcept nogil:
    """Into a table without removed slots that has room and does not hold the address."""
    cdef uint64_t at = hosts4_start(table, <uint32_t>(word >> 32))
    while table.slots[at] != 0:
        at = (at + 1) & table.mask
    store_relaxed_u64(&table.slots[at], word)
    table.used += 1


cdef int bits_for(size_t live) noexcept nogil:
    """Size of a rebuilt table: at most half full, so that the next rebuild is a quarter of its slots away."""
    cdef int bits = HOSTS_MIN_BITS
    while (<size_t>1 << bits) < live * 2:
        bits += 1
    return bits


cdef hosts4_t* hosts4_room(hosts_t* hosts, memory_t* memory) noexcept nogil:
    """The table with room for one more entry, rebuilt when 3/4 of its slots are used; NULL without memory."""
    cdef hosts4_t* old = <hosts4_t*>hosts.table
    cdef hosts4_t* table
    cdef uint64_t i, word
    if old != NULL and (old.used + 1) * 4 <= (old.mask + 1) * 3:
        return old
    table = hosts4_new(memory, bits_for(hosts.live + 1))
    if table == NULL:
        return NULL
    if old != NULL:
        for i in range(old.mask + 1):
            word = old.slots[i]
            if word != 0 and <uint32_t>word != HOST_REMOVED4:
                hosts4_place(table, word)
    store_release_ptr(&hosts.table, table)
    if old != NULL:
        retire(memory, old, hosts4_bytes(old.mask))
    return table


cdef uint64_t* hosts4_slot(hosts4_t* table, uint32_t addr) noexcept nogil:
    """The live slot of an address, NULL when absent."""
    cdef uint64_t at, word
    if table == NULL:
        return NULL
    at = hosts4_start(table, addr)
    while True:
        word = table.slots[at]
        if word == 0:
            return NULL
        if <uint32_t>(word >> 32) == addr and <uint32_t>word != HOST_REMOVED4:
            return &table.slots[at]
        at = (at + 1) & table.mask


cdef int hosts4_insert(hosts_t* hosts, memory_t* memory, uint32_t addr, int32_t value) noexcept nogil:
    cdef uint64_t word = (<uint64_t>addr << 32) | (<uint32_t>value + 1)
    cdef uint64_t* slot = hosts4_slot(<hosts4_t*>hosts.table, addr)
    cdef hosts4_t* table
    cdef uint64_t at
    if slot != NULL:
        store_relaxed_u64(slot, word)
        return LPM_REPLACED
    table = hosts4_room(hosts, memory)
    if table == NULL:
        return LPM_NO_MEMORY
    at = hosts4_start(table, addr)
    # A removed slot is taken again at once: the whole entry is one word, so no reader sees a mixture.
    while table.slots[at] != 0 and <uint32_t>table.slots[at] != HOST_REMOVED4:
        at = (at + 1) & table.mask
    if table.slots[at] == 0:
        table.used += 1
    store_relaxed_u64(&table.slots[at], word)
    hosts.live += 1
    return LPM_OK


cdef int hosts4_remove(hosts_t* hosts, uint32_t addr) noexcept nogil:
    cdef hosts4_t* table = <hosts4_t*>hosts.table
    cdef uint64_t* slot = hosts4_slot(table, addr)
    cdef uint64_t at
    if slot == NULL:
        return LPM_ABSENT
    hosts.live -= 1
    at = <uint64_t>(slot - table.slots)
    if table.slots[(at + 1) & table.mask] != 0:
        store_relaxed_u64(slot, (<uint64_t>addr << 32) | HOST_REMOVED4)
        return LPM_OK
    # The end of a run: nothing is looked for beyond it, so it and the removed slots before it become empty.
    store_relaxed_u64(slot, 0)
    table.used -= 1
    at = (at - 1) & table.mask
    while <uint32_t>table.slots[at] == HOST_REMOVED4:
        store_relaxed_u64(&table.slots[at], 0)
        table.used -= 1
        at = (at - 1) & table.mask
    return LPM_OK


# --- IPv6 -------------------------------------------------------------------------------------------------------------
cdef inline size_t hosts6_bytes(uint64_t mask) noexcept nogil:
    return sizeof(hosts6_t) + (mask + 1) * sizeof(host6_t)


cdef hosts6_t* hosts6_new(memory_t* memory, int bits) noexcept nogil:
    cdef uint64_t mask = (<uint64_t>1 << bits) - 1
    cdef hosts6_t* table = <hosts6_t*>calloc(1, hosts6_bytes(mask))
    if table == NULL:
        return NULL
    table.mask = mask
    table.shift = 64 - bits
    table.seed = memory.seed
    table.slots = <host6_t*>(<char*>table + sizeof(hosts6_t))
    memory.bytes += hosts6_bytes(mask)
    return table


cdef host6_t* hosts6_slot(hosts6_t* table, uint64_t hi, uint64_t lo) noexcept nogil:
    """The slot that holds the key (live or removed) or the empty one where it belongs."""
    cdef uint64_t at = hosts6_start(table, hi, lo)
    cdef host6_t* slot
    while True:
        slot = &table.slots[at]
        if slot.state == 0 or (slot.lo == lo and slot.hi == hi):
            return slot
        at = (at + 1) & table.mask


cdef hosts6_t* hosts6_room(hosts_t* hosts, memory_t* memory) noexcept nogil:
    cdef hosts6_t* old = <hosts6_t*>hosts.table
    cdef hosts6_t* table
    cdef host6_t* slot
    cdef uint64_t i
    if old != NULL and (old.used + 1) * 4 <= (old.mask + 1) * 3:
        return old
    table = hosts6_new(memory, bits_for(hosts.live + 1))
    if table == NULL:
        return NULL
    if old != NULL:
        for i in range(old.mask + 1):
            if old.slots[i].state > 0:
                slot = hosts6_slot(table, old.slots[i].hi, old.slots[i].lo)
                slot[0] = old.slots[i]
                table.used += 1
    store_release_ptr(&hosts.table, table)
    if old != NULL:
        retire(memory, old, hosts6_bytes(old.mask))
    return table


cdef int hosts6_insert(hosts_t* hosts, memory_t* memory, uint64_t hi, uint64_t lo, int32_t value) noexcept nogil:
    cdef hosts6_t* table = <hosts6_t*>hosts.table
    cdef host6_t* slot
    cdef bint was_live
    if table != NULL:
        slot = hosts6_slot(table, hi, lo)
        if slot.state != 0:
            was_live = slot.state != HOST_REMOVED
            store_release_i32(&slot.state, value + 1)
            if was_live:
                return LPM_REPLACED
            hosts.live += 1
            return LPM_OK
    table = hosts6_room(hosts, memory)
    if table == NULL:
        return LPM_NO_MEMORY
    slot = hosts6_slot(table, hi, lo)
    slot.hi = hi
    slot.lo = lo
    store_release_i32(&slot.state, value + 1)
    table.used += 1
    hosts.live += 1
    return LPM_OK


cdef int hosts6_remove(hosts_t* hosts, uint64_t hi, uint64_t lo) noexcept nogil:
    cdef hosts6_t* table = <hosts6_t*>hosts.table
    cdef host6_t* slot
    if table == NULL:
        return LPM_ABSENT
    slot = hosts6_slot(table, hi, lo)
    if slot.state <= 0:
        return LPM_ABSENT
    store_release_i32(&slot.state, HOST_REMOVED)
    hosts.live -= 1
    return LPM_OK
