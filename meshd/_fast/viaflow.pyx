"""Flow memory of via addresses; the contract is in viaflow.pxd."""
# freethreading: made for use by many threads.

from libc.stdlib cimport calloc, free

from meshd._fast.packet cimport PROTO_ICMP4, PROTO_TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN

cdef extern from "atomic.h" nogil:
    uint32_t load_relaxed_u32(const uint32_t* at)
    uint32_t load_acquire_u32(const uint32_t* at)
    void store_relaxed_u32(uint32_t* to, uint32_t value)
    void store_release_u32(uint32_t* to, uint32_t value)
    int32_t load_relaxed_i32(const int32_t* at)
    void store_relaxed_i32(int32_t* to, int32_t value)
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
    #define VIA_MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)
    #define VIA_MULTIPLIER2 UINT64_C(0xD6E8FEB86659FD93)
    """
    const uint64_t VIA_MULTIPLIER
    const uint64_t VIA_MULTIPLIER2

cdef enum:
    PORT_TRIES = 8                  # ports that a flow may get whose own is in use
    PORT_STEP = 7919
    FIRST_PORT = 1024

# TCP as far as the time to live depends on it. A bit that two threads set at once may be lost: it comes again or the
# flow lives longer.
cdef enum:
    ANSWERED = 1
    PEER_FIN = 2
    HOST_FIN = 4
    RESET = 8
    NO_PEER = -1

cdef struct entry_t:
    uint64_t words[5]
    uint32_t deadline
    uint32_t state


cdef inline bint _live(uint32_t deadline, uint32_t tick) noexcept nogil:
    return deadline != 0 and <int32_t> (deadline - tick) >= 0


cdef inline bint _closed(uint32_t state) noexcept nogil:
    return state & RESET or (state & PEER_FIN and state & HOST_FIN)


cdef inline uint32_t _idle(uint16_t proto, uint32_t state) noexcept nogil:
    if proto == PROTO_TCP:
        return VIA_TCP_OPEN if state & ANSWERED and not _closed(state) else VIA_TCP_OTHER
    if proto == PROTO_ICMP4:
        return VIA_ICMP
    return VIA_PARTS if proto >= VIA_FRAGMENT else VIA_UDP


cdef inline uint64_t _ends(const via_key_t* key) noexcept nogil:
    return (<uint64_t> key.host << 32) | key.peer


cdef inline uint64_t _ports(const via_key_t* key) noexcept nogil:
    return (<uint64_t> key.proto << 32) | (<uint64_t> key.port << 16) | key.host_port


cdef inline via_set_t* _set(via_flows_t* flows, uint64_t ends, uint64_t ports) noexcept nogil:
    cdef uint64_t x = (ends ^ flows.seed) * VIA_MULTIPLIER
    x = (x ^ (x >> 32) ^ ports) * VIA_MULTIPLIER2
    x = (x ^ (x >> 29)) * VIA_MULTIPLIER
    return &flows.sets[(x >> 40) & (VIA_SETS - 1)]


cdef inline int _way(const via_set_t* line, uint64_t ends, uint64_t ports, uint32_t tick) noexcept nogil:
    cdef int way
    for way in range(VIA_WAYS):
        if (load_relaxed_u64(&line.words[way][0]) == ends and load_relaxed_u64(&line.words[way][1]) == ports
                and _live(load_relaxed_u32(&line.deadlines[way]), tick)):
            return way
    return -1


cdef inline int _find(via_set_t* line, uint64_t ends, uint64_t ports, uint32_t tick, entry_t* entry) noexcept nogil:
    """The way of a live flow and a copy of it, -1 when there is none."""
    cdef uint32_t version
    cdef int way, i
    while True:
        version = load_acquire_u32(&line.version)
        if not version & 1:
            way = _way(line, ends, ports, tick)
            if way >= 0:
                for i in range(5):
                    entry.words[i] = load_relaxed_u64(&line.words[way][i])
                entry.deadline = load_relaxed_u32(&line.deadlines[way])
                entry.state = load_relaxed_u32(&line.states[way])
            fence_acquire()
            if load_relaxed_u32(&line.version) == version:
                return way
        cpu_pause()


cdef inline void _used(via_set_t* line, int way, const entry_t* entry, uint16_t proto, uint32_t state,
                       uint32_t tick) noexcept nogil:
    """Another packet of the flow. Writes at most once a tick, unless the state is another.

    The way may have got another flow meanwhile, which then lives a little longer or shorter.
    """
    cdef uint32_t deadline = tick + _idle(proto, state)
    if state != entry.state:
        store_relaxed_u32(&line.states[way], state)
    if deadline != entry.deadline:
        store_relaxed_u32(&line.deadlines[way], deadline)


cdef inline uint32_t _after(uint32_t state, uint8_t tcp_flags, bint from_peer) noexcept nogil:
    if from_peer and (tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN and _closed(state):
        return 0                    # the ports are used anew
    if not from_peer:
        state |= ANSWERED
    if tcp_flags & TCP_FIN:
        state |= PEER_FIN if from_peer else HOST_FIN
    if tcp_flags & TCP_RST:
        state |= RESET
    return state


cdef inline void _lock(via_set_t* line) noexcept nogil:
    cdef uint32_t version
    while True:
        version = load_relaxed_u32(&line.version)
        if not version & 1 and swap_acquire_u32(&line.version, version, version + 1):
            break
        cpu_pause()
    fence_release()


cdef inline void _unlock(via_set_t* line) noexcept nogil:
    store_release_u32(&line.version, load_relaxed_u32(&line.version) + 1)


cdef int _victim(const via_set_t* line, int32_t peer, uint32_t tick) noexcept nogil:
    """The way for a new flow: a free one, else that of the peer's own which ends first, else any that does.

    So one peer's flood costs the others at most one flow a set.
    """
    cdef int way, own = -1, other = 0
    for way in range(VIA_WAYS):
        if not _live(load_relaxed_u32(&line.deadlines[way]), tick):
            return way
        if load_relaxed_i32(&line.peers[way]) == peer and (own < 0 or <int32_t> (
                load_relaxed_u32(&line.deadlines[way]) - load_relaxed_u32(&line.deadlines[own])) < 0):
            own = way
        if <int32_t> (load_relaxed_u32(&line.deadlines[way]) - load_relaxed_u32(&line.deadlines[other])) < 0:
            other = way
    return own if own >= 0 else other


cdef via_claim_t _put(via_set_t* line, const uint64_t* words, int32_t peer, uint32_t state, uint32_t idle, bint replace,
                      uint32_t tick) noexcept nogil:
    """VIA_CLAIM_KNOWN: somebody was quicker, or an entry was replaced."""
    cdef via_claim_t result = VIA_CLAIM_KNOWN
    cdef int way, i
    _lock(line)
    way = _way(line, words[0], words[1], tick)
    if way < 0:
        way = _victim(line, peer, tick)
        result = VIA_CLAIM_EVICTED if _live(load_relaxed_u32(&line.deadlines[way]), tick) else VIA_CLAIM_NEW
        replace = True
    if replace:
        for i in range(5):
            store_relaxed_u64(&line.words[way][i], words[i])
        store_relaxed_i32(&line.peers[way], peer)
        store_relaxed_u32(&line.states[way], state)
        store_relaxed_u32(&line.deadlines[way], tick + idle)
    _unlock(line)
    return result


cdef inline void _words(uint64_t* words, const via_key_t* key, const via_flow_t* flow) noexcept nogil:
    words[0] = _ends(key)
    words[1] = _ports(key)
    words[2] = flow.source[0]
    words[3] = flow.source[1]
    words[4] = (<uint64_t> flow.site << 32) | flow.port


cdef inline uint16_t _port(uint16_t own, uint32_t attempt) noexcept nogil:
    if attempt == 0:
        return own
    return <uint16_t> (FIRST_PORT + (own + attempt * PORT_STEP) % (65536 - FIRST_PORT))


cdef inline bint _same(const uint64_t* words, const entry_t* entry) noexcept nogil:
    return ((words[2] ^ entry.words[2]) | (words[3] ^ entry.words[3]) | (words[4] ^ entry.words[4])) == 0


cdef int _search(via_flows_t* flows, via_key_t* key, uint64_t* words, uint32_t tick, via_set_t** line, entry_t* entry,
                 int* vacant) noexcept nogil:
    """The way of this very flow, under whatever port; -1 when it is not known, with the first try that is free."""
    cdef uint16_t own = key.port
    cdef uint32_t attempt
    cdef int way
    vacant[0] = -1
    for attempt in range(<uint32_t> PORT_TRIES):
        key.port = _port(own, attempt)
        words[1] = _ports(key)
        line[0] = _set(flows, words[0], words[1])
        way = _find(line[0], words[0], words[1], tick, entry)
        if way >= 0 and _same(words, entry):
            return way
        if way < 0 and vacant[0] < 0:
            vacant[0] = <int> attempt
    key.port = own
    return -1


cdef via_claim_t viaflow_claim_c(via_flows_t* flows, via_key_t* key, const via_flow_t* flow, int32_t peer,
                                 uint8_t tcp_flags, uint32_t tick) noexcept nogil:
    cdef uint16_t own = key.port
    cdef uint64_t words[5]
    cdef entry_t entry
    cdef via_set_t* line = NULL
    cdef uint32_t state, _try
    cdef int way, vacant = -1
    cdef via_claim_t result
    _words(words, key, flow)
    for _try in range(2):           # again when another thread was quicker with the same port
        key.port = own
        way = _search(flows, key, words, tick, &line, &entry, &vacant)
        if way >= 0:
            _used(line, way, &entry, key.proto, _after(entry.state, tcp_flags, True), tick)
            return VIA_CLAIM_KNOWN
        if vacant < 0:
            break
        key.port = _port(own, <uint32_t> vacant)
        words[1] = _ports(key)
        state = _after(0, tcp_flags, True)
        result = _put(_set(flows, words[0], words[1]), words, peer, state, _idle(key.proto, state), False, tick)
        if result != VIA_CLAIM_KNOWN:
            return result
    key.port = own
    return VIA_CLAIM_NONE


cdef bint viaflow_known_c(via_flows_t* flows, via_key_t* key, const via_flow_t* flow, uint32_t tick) noexcept nogil:
    cdef uint64_t words[5]
    cdef entry_t entry
    cdef via_set_t* line = NULL
    cdef int vacant = -1
    _words(words, key, flow)
    return _search(flows, key, words, tick, &line, &entry, &vacant) >= 0


cdef bint viaflow_answer_c(via_flows_t* flows, const via_key_t* key, via_flow_t* flow, uint8_t tcp_flags, bint refresh,
                           uint32_t tick) noexcept nogil:
    cdef uint64_t ends = _ends(key), ports = _ports(key)
    cdef via_set_t* line = _set(flows, ends, ports)
    cdef entry_t entry
    cdef int way = _find(line, ends, ports, tick, &entry)
    if way < 0:
        return False
    flow.source[0] = entry.words[2]
    flow.source[1] = entry.words[3]
    flow.site = <uint32_t> (entry.words[4] >> 32)
    flow.port = <uint16_t> entry.words[4]
    if refresh:
        _used(line, way, &entry, key.proto, _after(entry.state, tcp_flags, False), tick)
    return True


cdef bint viaflow_taken_c(via_flows_t* flows, const via_key_t* key, uint32_t tick) noexcept nogil:
    cdef uint64_t ends = _ends(key), ports = _ports(key)
    cdef entry_t entry
    return _find(_set(flows, ends, ports), ends, ports, tick, &entry) >= 0 and not _closed(entry.state)


cdef void viaflow_parts_c(via_flows_t* flows, const via_key_t* key, const via_flow_t* flow,
                          uint32_t tick) noexcept nogil:
    cdef uint64_t words[5]
    _words(words, key, flow)
    _put(_set(flows, words[0], words[1]), words, NO_PEER, 0, VIA_PARTS, True, tick)


cdef class ViaFlows:
    """Flows that peers began by via addresses."""

    def __cinit__(self, seed=None):
        self.c = <via_flows_t*> calloc(1, sizeof(via_flows_t))
        if self.c == NULL:
            raise MemoryError
        # Pages that no flow has touched cost nothing.
        self.c.sets = <via_set_t*> calloc(VIA_SETS, sizeof(via_set_t))
        if self.c.sets == NULL:
            raise MemoryError
        if seed is not None:
            self.c.seed = seed
        elif getrandom(&self.c.seed, sizeof(self.c.seed), 1) != sizeof(self.c.seed):
            self.c.seed = <uint64_t> <size_t> self.c.sets * VIA_MULTIPLIER

    def __dealloc__(self):
        if self.c != NULL:
            free(self.c.sets)
            free(self.c)
