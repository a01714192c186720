"""Flow table of the packet filter; the contract is in flow.pyi, the C contract in flow.pxd."""
# freethreading: made for use by many threads; clear() alone wants the table to itself.

from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from "address.h" nogil:
    uint32_t load_be32(const uint8_t* p)
    uint64_t load_u64(const uint8_t* p)

cdef extern from "atomic.h" nogil:
    uint32_t load_relaxed_u32(const uint32_t* at)
    uint32_t load_acquire_u32(const uint32_t* at)
    void store_relaxed_u32(uint32_t* to, uint32_t value)
    void store_release_u32(uint32_t* to, uint32_t value)
    uint32_t add_relaxed_u32(uint32_t* to, uint32_t value)
    uint64_t load_relaxed_u64(const uint64_t* at)
    void store_relaxed_u64(uint64_t* to, uint64_t value)
    int swap_acquire_u32(uint32_t* at, uint32_t expected, uint32_t wanted)
    void fence_acquire()
    void fence_release()
    void cpu_pause()

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* buffer, size_t n, unsigned int flags)

cdef extern from *:
    """
    /* 2^64 / golden ratio (Fibonacci hashing), and another odd constant with well spread bits. */
    #define MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)
    #define MULTIPLIER2 UINT64_C(0xD6E8FEB86659FD93)
    """
    const uint64_t MULTIPLIER
    const uint64_t MULTIPLIER2

cdef inline void flow_key(uint64_t* key, const packet_info_t* info, bint reverse) noexcept nogil:
    """Protocol, addresses and ports as five words; reversed for what the peer will send back."""
    cdef const uint8_t* src = info.dst if reverse else info.src
    cdef const uint8_t* dst = info.src if reverse else info.dst
    cdef uint16_t src_port = info.dst_port if reverse else info.src_port
    cdef uint16_t dst_port = info.src_port if reverse else info.dst_port
    if info.version == 4:
        key[0] = load_be32(src)
        key[1] = 0
        key[2] = load_be32(dst)
        key[3] = 0
    else:
        key[0] = load_u64(src)
        key[1] = load_u64(src + 8)
        key[2] = load_u64(dst)
        key[3] = load_u64(dst + 8)
    key[4] = ((<uint64_t>info.version << 40) | (<uint64_t>info.proto << 32) | (<uint64_t>src_port << 16) | dst_port)


cdef inline uint64_t flow_hash(const flow_table_t* flows, const uint64_t* key) noexcept nogil:
    cdef uint64_t x = (key[0] ^ flows.seed) * MULTIPLIER
    cdef uint64_t y = (key[2] + flows.seed) * MULTIPLIER2
    x = (x ^ (x >> 32) ^ key[1]) * MULTIPLIER2
    y = (y ^ (y >> 32) ^ key[3]) * MULTIPLIER
    x = (x ^ (x >> 29) ^ key[4]) * MULTIPLIER
    x = (x + y) ^ (x >> 32)
    x *= MULTIPLIER2
    return x ^ (x >> 31)


cdef inline uint32_t flow_tag(uint64_t hash_) noexcept nogil:
    return <uint32_t>(hash_ >> 32) | 1


cdef inline int flow_way(const flow_set_t* line, uint32_t tag, const uint64_t* key) noexcept nogil:
    """The way that holds the key, -1 when absent. Meaningful only when the version did not change meanwhile."""
    cdef int way, i
    cdef uint64_t differs
    for way in range(FLOW_WAYS):
        if load_relaxed_u32(&line.tags[way]) == tag:
            differs = 0
            for i in range(FLOW_KEY_WORDS):
                differs |= load_relaxed_u64(&line.keys[way][i]) ^ key[i]
            if differs == 0:
                return way
    return -1


cdef inline bint flow_seen(flow_table_t* flows, const uint64_t* key, uint64_t hash_) noexcept nogil:
    """Whether the flow is known; refreshes its age."""
    cdef flow_set_t* line = &flows.sets[hash_ & (FLOW_SETS - 1)]
    cdef uint32_t version, clock
    cdef int way
    while True:
        version = load_acquire_u32(&line.version)
        if not version & 1:
            way = flow_way(line, flow_tag(hash_), key)
            fence_acquire()
            if load_relaxed_u32(&line.version) == version:
                break
        cpu_pause()
    if way < 0:
        return False
    clock = load_relaxed_u32(&flows.clock)
    if load_relaxed_u32(&line.stamps[way]) != clock:
        store_relaxed_u32(&line.stamps[way], clock)
    return True


cdef void flow_add(flow_table_t* flows, const uint64_t* key, uint64_t hash_) noexcept nogil:
    """Inserts the flow in place of the least recently used one of its set."""
    cdef flow_set_t* line = &flows.sets[hash_ & (FLOW_SETS - 1)]
    cdef uint32_t version, clock, age, oldest = 0
    cdef int way, i, victim = 0
    while True:
        version = load_relaxed_u32(&line.version)
        if not version & 1 and swap_acquire_u32(&line.version, version, version + 1):
            break
        cpu_pause()
    fence_release()
    if flow_way(line, flow_tag(hash_), key) < 0:
        clock = add_relaxed_u32(&flows.clock, 1)
        for way in range(FLOW_WAYS):
            if line.tags[way] == 0:
                victim = way
                break
            age = clock - load_relaxed_u32(&line.stamps[way])
            if age > oldest:
                oldest = age
                victim = way
        store_relaxed_u32(&line.tags[victim], flow_tag(hash_))
        store_relaxed_u32(&line.stamps[victim], clock)
        for i in range(FLOW_KEY_WORDS):
            store_relaxed_u64(&line.keys[victim][i], key[i])
    store_release_u32(&line.version, version + 2)


cdef bint flow_seen_c(flow_table_t* flows, const packet_info_t* info) noexcept nogil:
    cdef uint64_t[5] key
    flow_key(key, info, False)
    return flow_seen(flows, key, flow_hash(flows, key))


cdef void flow_remember_c(flow_table_t* flows, const packet_info_t* info) noexcept nogil:
    cdef uint64_t[5] key
    cdef uint64_t hash_
    flow_key(key, info, True)
    hash_ = flow_hash(flows, key)
    if not flow_seen(flows, key, hash_):
        flow_add(flows, key, hash_)


cdef class FlowTable:
    """Flows that this node started."""

    def __cinit__(self, seed=None):
        self.c = <flow_table_t*>calloc(1, sizeof(flow_table_t))
        if self.c == NULL:
            raise MemoryError
        self.c.sets = <flow_set_t*>calloc(FLOW_SETS, sizeof(flow_set_t))
        if self.c.sets == NULL:
            raise MemoryError
        if seed is not None:
            self.c.seed = seed
        elif getrandom(&self.c.seed, sizeof(self.c.seed), 1) != sizeof(self.c.seed):
            self.c.seed = <uint64_t><size_t>self.c.sets * MULTIPLIER

    def __dealloc__(self):
        if self.c != NULL:
            free(self.c.sets)
            free(self.c)

    def clear(self):
        """Forgets every flow."""
        memset(self.c.sets, 0, FLOW_SETS * sizeof(flow_set_t))

    @property
    def inserted(self):
        """How many flows were added so far."""
        return self.c.clock
