"""Longest-prefix map; the contract is in lpm.pyi, the C contract in lpm.pxd."""
# freethreading: a map has one writer at a time (PrefixMap does not lock); lookups may run beside it.

from libc.stdlib cimport calloc, free

from meshd._fast.hostroutes cimport (
    MULTIPLIER,
    hosts4_find,
    hosts4_insert,
    hosts4_remove,
    hosts6_find,
    hosts6_insert,
    hosts6_remove,
    load_acquire_ptr,
    retire,
    store_release_ptr,
)

cdef extern from "address.h" nogil:
    uint32_t load_be32(const uint8_t* p)
    uint64_t load_be64(const uint8_t* p)
    uint64_t mask_hi(int bits)
    uint64_t mask_lo(int bits)
    int equal_bits(uint64_t a_hi, uint64_t a_lo, uint64_t b_hi, uint64_t b_lo)
    int nibble_at(uint64_t hi, uint64_t lo, int depth)

cdef extern from "atomic.h" nogil:
    int32_t load_relaxed_i32(const int32_t* at)
    void store_relaxed_i32(int32_t* to, int32_t value)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* buffer, size_t n, unsigned int flags)


cdef size_t lpm_reclaim_c(lpm_t* map) noexcept nogil:
    cdef retired_t* head = map.memory.retired
    cdef retired_t* rest
    cdef size_t n = 0
    while head != NULL:
        rest = head.next
        free(head)
        head = rest
        n += 1
    map.memory.retired = NULL
    map.memory.retired_count = 0
    return n


# --- shorter prefixes -------------------------------------------------------------------------------------------

cdef inline int node_depth(int bits) noexcept nogil:
    """Depth of the node that holds prefixes of this length (1..128)."""
    return (bits - 1) & ~3


cdef inline bint node_covers(const lpm_node_t* node, uint64_t hi, uint64_t lo) noexcept nogil:
    return (((hi ^ node.key_hi) & node.mask_hi) | ((lo ^ node.key_lo) & node.mask_lo)) == 0


cdef lpm_node_t* node_new(lpm_t* map, uint64_t hi, uint64_t lo, int depth) noexcept nogil:
    cdef lpm_node_t* node = <lpm_node_t*>calloc(1, sizeof(lpm_node_t))
    cdef int i
    if node == NULL:
        return NULL
    node.depth = depth
    node.mask_hi = mask_hi(depth)
    node.mask_lo = mask_lo(depth)
    node.key_hi = hi & node.mask_hi
    node.key_lo = lo & node.mask_lo
    for i in range(LPM_FANOUT):
        node.slots[i].value = LPM_NONE
    for i in range(2 * LPM_FANOUT):
        node.own[i] = LPM_NONE
    map.memory.bytes += sizeof(lpm_node_t)
    return node


cdef inline int own_index(uint64_t hi, uint64_t lo, int depth, int bits) noexcept nogil:
    cdef int length = bits - depth
    return (1 << length) | (nibble_at(hi, lo, depth) >> (4 - length))


cdef void node_refresh(lpm_node_t* node, int index) noexcept nogil:
    """Recomputes the slots below heap position `index` after own[index] changed."""
    cdef int first = index, last = index, slot, at
    cdef int32_t value
    while first < LPM_FANOUT:
        first = first * 2
        last = last * 2 + 1
    for slot in range(first - LPM_FANOUT, last - LPM_FANOUT + 1):
        at = slot + LPM_FANOUT
        value = LPM_NONE
        while at > 1 and value == LPM_NONE:
            value = node.own[at]
            at >>= 1
        store_relaxed_i32(&node.slots[slot].value, value)


cdef lpm_node_t* trie_node(lpm_t* map, void** root, uint64_t hi, uint64_t lo, int depth) noexcept nogil:
    """The node at `depth` on the path of the address, made when absent; NULL without memory."""
    cdef void** link = root
    cdef lpm_node_t* node
    cdef lpm_node_t* made
    cdef lpm_node_t* fork
    cdef int common
    while True:
        node = <lpm_node_t*>link[0]
        if node == NULL:
            made = node_new(map, hi, lo, depth)
            if made != NULL:
                store_release_ptr(link, made)
            return made
        common = min(equal_bits(hi, lo, node.key_hi, node.key_lo), min(node.depth, depth)) & ~3
        if common == node.depth:
            if node.depth == depth:
                return node
            link = &node.slots[nibble_at(hi, lo, node.depth)].child
            continue
        made = node_new(map, hi, lo, depth)
        if made == NULL:
            return NULL
        if common == depth:
            made.slots[nibble_at(node.key_hi, node.key_lo, depth)].child = node
            store_release_ptr(link, made)
            return made
        fork = node_new(map, hi, lo, common)
        if fork == NULL:
            map.memory.bytes -= sizeof(lpm_node_t)
            free(made)
            return NULL
        fork.slots[nibble_at(hi, lo, common)].child = made
        fork.slots[nibble_at(node.key_hi, node.key_lo, common)].child = node
        store_release_ptr(link, fork)
        return made


cdef int trie_insert(lpm_t* map, void** root, uint64_t hi, uint64_t lo, int bits, int32_t value) noexcept nogil:
    cdef int depth = node_depth(bits)
    cdef lpm_node_t* node = trie_node(map, root, hi, lo, depth)
    cdef int at
    cdef bint was_there
    if node == NULL:
        return LPM_NO_MEMORY
    at = own_index(hi, lo, depth, bits)
    was_there = node.own[at] != LPM_NONE
    node.own[at] = value
    node_refresh(node, at)
    if was_there:
        return LPM_REPLACED
    node.owned += 1
    return LPM_OK


cdef bint node_prune(lpm_t* map, void** link) noexcept nogil:
    """Takes a node without prefixes and with at most one child out of the trie; True when it did."""
    cdef lpm_node_t* node = <lpm_node_t*>link[0]
    cdef void* child = NULL
    cdef int i
    if node.owned:
        return False
    for i in range(LPM_FANOUT):
        if node.slots[i].child != NULL:
            if child != NULL:
                return False
            child = node.slots[i].child
    store_release_ptr(link, child)
    retire(&map.memory, node, sizeof(lpm_node_t))
    return True


cdef int trie_remove(lpm_t* map, void** root, uint64_t hi, uint64_t lo, int bits) noexcept nogil:
    cdef int depth = node_depth(bits), at
    cdef void** link = root
    cdef void** parent = NULL
    cdef lpm_node_t* node
    while True:
        node = <lpm_node_t*>link[0]
        if node == NULL or node.depth > depth or not node_covers(node, hi, lo):
            return LPM_ABSENT
        if node.depth == depth:
            break
        parent = link
        link = &node.slots[nibble_at(hi, lo, node.depth)].child
    at = own_index(hi, lo, depth, bits)
    if node.own[at] == LPM_NONE:
        return LPM_ABSENT
    node.own[at] = LPM_NONE
    node.owned -= 1
    node_refresh(node, at)
    # A fork keeps at least two children, so only the parent can have become superfluous.
    if node_prune(map, link) and parent != NULL:
        node_prune(map, parent)
    return LPM_OK


cdef int32_t trie_get(void* root, uint64_t hi, uint64_t lo, int bits) noexcept nogil:
    cdef int depth = node_depth(bits)
    cdef lpm_node_t* node = <lpm_node_t*>root
    while node != NULL and node.depth <= depth and node_covers(node, hi, lo):
        if node.depth == depth:
            return node.own[own_index(hi, lo, depth, bits)]
        node = <lpm_node_t*>node.slots[nibble_at(hi, lo, node.depth)].child
    return LPM_NONE


cdef void trie_free(lpm_node_t* node) noexcept nogil:
    """Depth is bounded by 32 nodes (128 bits, 4 each)."""
    cdef int i
    if node == NULL:
        return
    for i in range(LPM_FANOUT):
        trie_free(<lpm_node_t*>node.slots[i].child)
    free(node)


# --- the map ----------------------------------------------------------------------------------------------------

cdef lpm_t* lpm_new_c() noexcept nogil:
    cdef lpm_t* map = <lpm_t*>calloc(1, sizeof(lpm_t))
    if map == NULL:
        return NULL
    map.default4 = LPM_NONE
    map.default6 = LPM_NONE
    # An unknown seed keeps whoever hands out addresses from choosing colliding ones.
    if getrandom(&map.memory.seed, sizeof(map.memory.seed), 1) != sizeof(map.memory.seed):
        map.memory.seed = <uint64_t><size_t>map * MULTIPLIER
    map.memory.bytes = sizeof(lpm_t)
    return map


cdef void lpm_free_c(lpm_t* map) noexcept nogil:
    if map == NULL:
        return
    lpm_reclaim_c(map)
    trie_free(<lpm_node_t*>map.root4)
    trie_free(<lpm_node_t*>map.root6)
    free(map.hosts4.table)
    free(map.hosts6.table)
    free(map)


cdef inline bint split_c(const uint8_t* addr, int family, int bits, uint64_t* hi, uint64_t* lo) noexcept nogil:
    """The masked address, left aligned; False when family or length is out of range."""
    if family == 4 and 0 <= bits <= 32:
        hi[0] = (<uint64_t>load_be32(addr) << 32) & mask_hi(bits)
        lo[0] = 0
        return True
    if family == 6 and 0 <= bits <= 128:
        hi[0] = load_be64(addr) & mask_hi(bits)
        lo[0] = load_be64(addr + 8) & mask_lo(bits)
        return True
    return False


cdef int lpm_insert_c(lpm_t* map, const uint8_t* addr, int family, int bits, int32_t value) noexcept nogil:
    cdef uint64_t hi, lo
    cdef int status
    cdef int32_t* fallback
    if value < 0 or value == 0x7fffffff or not split_c(addr, family, bits, &hi, &lo):
        return LPM_INVALID
    if bits == 0:
        fallback = &map.default4 if family == 4 else &map.default6
        status = LPM_OK if fallback[0] == LPM_NONE else LPM_REPLACED
        store_relaxed_i32(fallback, value)
    elif family == 4:
        if bits == 32:
            status = hosts4_insert(&map.hosts4, &map.memory, <uint32_t>(hi >> 32), value)
        else:
            status = trie_insert(map, &map.root4, hi, lo, bits, value)
    elif bits == 128:
        status = hosts6_insert(&map.hosts6, &map.memory, hi, lo, value)
    else:
        status = trie_insert(map, &map.root6, hi, lo, bits, value)
    if status == LPM_OK:
        map.prefixes += 1
    return status


cdef int lpm_remove_c(lpm_t* map, const uint8_t* addr, int family, int bits) noexcept nogil:
    cdef uint64_t hi, lo
    cdef int status
    cdef int32_t* fallback
    if not split_c(addr, family, bits, &hi, &lo):
        return LPM_INVALID
    if bits == 0:
        fallback = &map.default4 if family == 4 else &map.default6
        status = LPM_ABSENT if fallback[0] == LPM_NONE else LPM_OK
        store_relaxed_i32(fallback, LPM_NONE)
    elif family == 4:
        if bits == 32:
            status = hosts4_remove(&map.hosts4, <uint32_t>(hi >> 32))
        else:
            status = trie_remove(map, &map.root4, hi, lo, bits)
    elif bits == 128:
        status = hosts6_remove(&map.hosts6, hi, lo)
    else:
        status = trie_remove(map, &map.root6, hi, lo, bits)
    if status == LPM_OK:
        map.prefixes -= 1
    return status


cdef int32_t lpm_get_c(const lpm_t* map, const uint8_t* addr, int family, int bits) noexcept nogil:
    cdef uint64_t hi, lo
    if not split_c(addr, family, bits, &hi, &lo):
        return LPM_NONE
    if bits == 0:
        return map.default4 if family == 4 else map.default6
    if family == 4:
        if bits == 32:
            if map.hosts4.table == NULL:
                return LPM_NONE
            return hosts4_find(<hosts4_t*>map.hosts4.table, <uint32_t>(hi >> 32))
        return trie_get(map.root4, hi, lo, bits)
    if bits == 128:
        return hosts6_find(<hosts6_t*>map.hosts6.table, hi, lo) if map.hosts6.table != NULL else LPM_NONE
    return trie_get(map.root6, hi, lo, bits)


cdef inline int32_t trie_lookup(void* root, uint64_t hi, uint64_t lo, int32_t best) noexcept nogil:
    cdef const lpm_node_t* node = <const lpm_node_t*>root
    cdef const lpm_slot_t* slot
    cdef int32_t value
    while node != NULL and node_covers(node, hi, lo):
        slot = &node.slots[nibble_at(hi, lo, node.depth)]
        value = load_relaxed_i32(&slot.value)
        if value != LPM_NONE:
            best = value
        node = <const lpm_node_t*>load_acquire_ptr(&slot.child)
    return best


cdef int32_t lpm_lookup_c(const lpm_t* map, const uint8_t* addr, int family) noexcept nogil:
    cdef uint32_t addr4
    cdef uint64_t hi, lo
    cdef void* hosts
    cdef int32_t value
    if family == 4:
        addr4 = load_be32(addr)
        hosts = load_acquire_ptr(&map.hosts4.table)
        if hosts != NULL:
            value = hosts4_find(<const hosts4_t*>hosts, addr4)
            if value != LPM_NONE:
                return value
        return trie_lookup(load_acquire_ptr(&map.root4), <uint64_t>addr4 << 32, 0, load_relaxed_i32(&map.default4))
    hi = load_be64(addr)
    lo = load_be64(addr + 8)
    hosts = load_acquire_ptr(&map.hosts6.table)
    if hosts != NULL:
        value = hosts6_find(<const hosts6_t*>hosts, hi, lo)
        if value != LPM_NONE:
            return value
    return trie_lookup(load_acquire_ptr(&map.root6), hi, lo, load_relaxed_i32(&map.default6))


# --- Python -----------------------------------------------------------------------------------------------------

cdef int family_of(const uint8_t[::1] address) except -1:
    if address.shape[0] == 4:
        return 4
    if address.shape[0] == 16:
        return 6
    raise ValueError("an address is 4 or 16 bytes")


cdef int check_bits(int family, int bits) except -1:
    if not 0 <= bits <= (32 if family == 4 else 128):
        raise ValueError(f"prefix length {bits} does not exist in IPv{family}")
    return 0


cdef class PrefixMap:
    """Longest-prefix map from prefixes of both families to small integers."""

    def __cinit__(self):
        self.c = lpm_new_c()
        if self.c == NULL:
            raise MemoryError

    def __dealloc__(self):
        lpm_free_c(self.c)

    def insert(self, const uint8_t[::1] address not None, int bits, int32_t value, /):
        """Maps a prefix to value; True when it is new, False when its value was replaced."""
        cdef int family = family_of(address)
        check_bits(family, bits)
        cdef int status = lpm_insert_c(self.c, &address[0], family, bits, value)
        if status == LPM_NO_MEMORY:
            raise MemoryError
        if status == LPM_INVALID:
            raise ValueError("value must be in 0..2**31-2")
        lpm_reclaim_c(self.c)
        return status == LPM_OK

    def remove(self, const uint8_t[::1] address not None, int bits, /):
        """Removes exactly this prefix; False when it was absent."""
        cdef int family = family_of(address)
        check_bits(family, bits)
        cdef int status = lpm_remove_c(self.c, &address[0], family, bits)
        lpm_reclaim_c(self.c)
        return status == LPM_OK

    def lookup(self, const uint8_t[::1] address not None, /):
        """The value of the longest prefix that contains the address, None when there is none."""
        cdef int32_t value = lpm_lookup_c(self.c, &address[0], family_of(address))
        return None if value == LPM_NONE else value

    def get(self, const uint8_t[::1] address not None, int bits, /):
        """The value of exactly this prefix, None when absent."""
        cdef int family = family_of(address)
        check_bits(family, bits)
        cdef int32_t value = lpm_get_c(self.c, &address[0], family, bits)
        return None if value == LPM_NONE else value

    def __len__(self):
        return self.c.prefixes

    @property
    def allocated_bytes(self):
        """Memory in use."""
        return self.c.memory.bytes
