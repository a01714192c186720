"""C loops that throw hostile inputs at the C functions of `_fast`, without the interpreter.

Each target takes one input and answers 0, or the number of the promise that was broken. `run` gives the first input
with a broken promise; a read beyond the input ends the process.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from meshd._fast.coalesce cimport (
    gro_add_c,
    gro_finish_c,
    gro_free_c,
    gro_item_t,
    gro_new_c,
    gro_piece_c,
    gro_reset_c,
    gro_t,
)
from meshd._fast.filter cimport Filter, filter_in_c, filter_out_c
from meshd._fast.flow cimport FlowTable, flow_table_t
from meshd._fast.ipprefix cimport (
    equal_bits,
    ip_range_t,
    ranges_find,
    ranges_intersect,
    ranges_normalise,
    ranges_subtract,
)
from meshd._fast.jsonnames cimport NameTable, inspect_c, name_table_t
from meshd._fast.lpm cimport lpm_free_c, lpm_get_c, lpm_insert_c, lpm_lookup_c, lpm_new_c, lpm_remove_c, lpm_t
from meshd._fast.masquerade cimport masquerade_in_c, masquerade_out_c, masquerade_t
from meshd._fast.packet cimport FAST_OK, fold_c, packet_info_t, parse_c, pseudo_sum_c, sum_c
from meshd._fast.ruleset cimport filter_t
from meshd._fast.segment cimport (
    SEGMENT_OK,
    VNET_BYTES,
    emit_c,
    piece_bytes_c,
    plan_c,
    segment_plan_t,
    vnet_header_t,
)
from meshd._fast.via cimport Via
from meshd._fast.viain cimport VIA_IN_DONE, via_clash_c, via_in_c, via_in_t
from meshd._fast.viaout cimport (
    VIA_OUT_PARTS,
    VIA_OUT_TOO_BIG,
    VIA_OUT_WHOLE,
    VIA_TOO_BIG_BYTES,
    via_out_c,
    via_out_result_t,
    via_out_t,
    via_part_c,
    via_too_big_c,
)
from meshd._fast.viaroutes cimport VIA_HEADROOM, via_t

cdef extern from "fuzzloop.h" nogil:
    enum:
        FUZZ_LIMIT
    ctypedef struct fuzz_t:
        const uint8_t** seeds
        size_t* sizes
        size_t seeds_n
        uint8_t scratch[4096]
        size_t scratch_n
    int fuzz_open(fuzz_t* f, uint64_t seed)
    void fuzz_close(fuzz_t* f)
    void fuzz_next(fuzz_t* f)
    uint64_t fuzz_bits(fuzz_t* f)
    uint8_t* fuzz_copy(fuzz_t* f, const uint8_t* data, size_t n)
    void fuzz_free(uint8_t* copy)

cdef extern from "udpmsg.h" nogil:
    cdef struct msghdr:
        void* msg_control
        size_t msg_controllen
    uint32_t udpmsg_gro_size(const msghdr* m)

ctypedef struct context_t:
    fuzz_t fuzz
    uint64_t deep               # executions that came further than the first refusal
    gro_t* gro
    const filter_t* program
    const filter_t* twin
    flow_table_t* flows
    const name_table_t* names
    const via_t* via
    uint32_t tick

ctypedef int (*target_t)(context_t*, const uint8_t*, size_t) noexcept nogil


cdef uint16_t plain_sum(const uint8_t* data, size_t n) noexcept nogil:
    """The folded ones-complement sum of whole 16-bit words as they lie in memory, the simplest way."""
    cdef uint32_t total = 0
    cdef size_t i = 0
    while i < n:
        total += data[i] | (<uint32_t> data[i + 1] << 8 if i + 1 < n else 0)
        total = (total & 0xffff) + (total >> 16)
        i += 2
    return <uint16_t> total


cdef int packet(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Headers lie in the packet, the packet in the buffer."""
    cdef packet_info_t info
    cdef uint32_t size
    if parse_c(data, n, &info) != FAST_OK:
        return 0
    c.deep += 1
    size = 4 if info.version == 4 else 16
    if info.total_bytes > n or info.l4_offset > info.total_bytes:
        return 1
    if info.src < data or info.dst < data or info.src + size > data + n or info.dst + size > data + n:
        return 2
    sum_c(data + info.l4_offset, info.total_bytes - info.l4_offset,
          pseudo_sum_c(info.version, info.src, info.dst, info.proto, info.total_bytes - info.l4_offset))
    return 0


cdef int checksum(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Every kernel, in one piece and in two, makes the sum of the simplest loop."""
    cdef size_t cut = (data[0] * 2) % (n + 1) & ~<size_t> 1 if n else 0
    cdef uint16_t right = plain_sum(data, n)
    c.deep += 1
    if fold_c(sum_c(data, n, 0)) != right:
        return 1
    return 2 if fold_c(sum_c(data + cut, n - cut, sum_c(data, cut, 0))) != right else 0


cdef int segment(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """The pieces are as long as announced, hold all of the payload, and their checksums are right."""
    cdef vnet_header_t vnet
    cdef segment_plan_t plan
    cdef packet_info_t info
    cdef uint32_t i, size, at
    cdef uint8_t* out
    cdef int broken = 0
    if n <= VNET_BYTES:
        return 0
    memcpy(&vnet, data, VNET_BYTES)
    if plan_c(&plan, &vnet, data + VNET_BYTES, n - VNET_BYTES) != SEGMENT_OK:
        return 0
    c.deep += plan.kind != 0
    at = plan.header
    for i in range(plan.count):
        size = piece_bytes_c(&plan, i)
        if size == 0 or size > 65535:
            return 1
        out = <uint8_t*> malloc(size)
        if emit_c(&plan, i, out) != size:
            broken = 2
        elif plan.kind:
            if memcmp(out + plan.header, plan.packet + at, size - plan.header) != 0:
                broken = 3
            at += size - plan.header
            if parse_c(out, size, &info) == FAST_OK and info.proto == (17 if plan.kind == 5 else 6) and (
                    info.l4_offset == plan.ip and info.total_bytes == size):
                if fold_c(sum_c(out + plan.ip, size - plan.ip, pseudo_sum_c(
                        info.version, info.src, info.dst, info.proto, size - plan.ip))) != 0xffff:
                    broken = 4
        free(out)
        if broken:
            return broken
    return 5 if plan.kind and at != plan.bytes else 0


cdef int coalesce(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Every packet of a batch is in exactly one item, whole; merged ones can be cut into what they were."""
    cdef uint8_t* packets[16]
    cdef uint32_t sizes[16]
    cdef uint32_t seen = 0, count = 0, i, k, size, total
    cdef uint64_t r
    cdef const uint8_t* piece
    cdef gro_item_t* item
    cdef int entries, broken = 0
    cdef uint8_t whole[70000]
    cdef segment_plan_t plan
    cdef vnet_header_t vnet
    cdef size_t at = 0
    # The input is a batch: a byte for the length in eights of 8, then the packet.
    while at < n and count < 16:
        size = data[at] * 8
        at += 1
        if size == 0 or at + size > n:
            size = <uint32_t> (n - at)
        if size == 0:
            break
        packets[count] = <uint8_t*> malloc(size)
        memcpy(packets[count], data + at, size)
        sizes[count] = size
        at += size
        if not gro_add_c(c.gro, packets[count], size):
            broken = 1
        count += 1
    for i in range(c.gro.count):
        item = &c.gro.items[i]
        entries = gro_finish_c(item)
        total = 0
        for k in range(<uint32_t> entries):
            if total + item.iov[k].iov_len > sizeof(whole):
                broken = 2
                break
            memcpy(whole + total, item.iov[k].iov_base, item.iov[k].iov_len)
            total += <uint32_t> item.iov[k].iov_len
        c.deep += item.pieces > 1
        if item.pieces > 1 and not broken:
            memcpy(&vnet, whole, VNET_BYTES)
            if plan_c(&plan, &vnet, whole + VNET_BYTES, total - VNET_BYTES) != SEGMENT_OK or plan.count != item.pieces:
                broken = 3
        for k in range(item.pieces):
            piece = gro_piece_c(item, k, &size)
            if item.pieces > 1 and not broken and size != piece_bytes_c(&plan, k):
                broken = 4
            for r in range(count):
                if packets[r] == piece:
                    if sizes[r] != size or seen & (<uint32_t> 1 << r):
                        broken = 5
                    seen |= <uint32_t> 1 << r
                    break
            else:
                broken = 6
    if not broken and seen != (<uint32_t> 1 << count) - 1:
        broken = 7
    gro_reset_c(c.gro)
    for i in range(256):
        if c.gro.newest[i] != -1:
            broken = 8
    for i in range(count):
        free(packets[i])
    return broken


cdef int filter(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """The compiled program and the one that scans rules decide alike."""
    cdef packet_info_t info
    cdef int verdict
    if parse_c(data, n, &info) != FAST_OK:
        return 0
    c.deep += 1
    verdict = filter_in_c(c.program, c.flows, &info)
    if verdict < 0 or verdict > 6:
        return 1
    if verdict != filter_in_c(c.twin, c.flows, &info):
        return 2
    if (info.src_port & 15) == 3:
        filter_out_c(c.program, c.flows, &info)
    return 0


cdef inline uint16_t same_sum(uint16_t folded) noexcept nogil:
    """Zero is written in two ways."""
    return 0 if folded == 0xffff else folded


cdef uint16_t transport_sum(const packet_info_t* info, const uint8_t* data) noexcept nogil:
    cdef uint32_t n = info.total_bytes - info.l4_offset
    cdef uint64_t pseudo = pseudo_sum_c(info.version, info.src, info.dst, info.proto, n)
    return same_sum(fold_c(sum_c(data + info.l4_offset, n, pseudo)))


cdef int masquerade(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Other addresses and the checksums over them, whose verdict stays the same; no other byte changes."""
    cdef masquerade_t pairs
    cdef packet_info_t info
    cdef uint8_t* packet
    cdef uint16_t header = 0, transport = 0
    cdef uint32_t check = 0, i, size
    cdef int partial = data[0] & 1 if n else 0, broken = 0
    if parse_c(data, n, &info) != FAST_OK:
        return 0
    if info.proto == 6:
        check = info.l4_offset + 16
    elif info.proto == 17:
        check = info.l4_offset + 6
    elif info.proto == 58 and info.version == 6:
        check = info.l4_offset + 2
    memset(&pairs, 0, sizeof(pairs))
    pairs.v4 = pairs.v6 = 1
    size = 4 if info.version == 4 else 16
    # The source is ours, and what the peer knows us by is the destination: both ways have something to do.
    memcpy(&pairs.own4[0] if size == 4 else &pairs.own6[0], info.src, size)
    memcpy(&pairs.shown4[0] if size == 4 else &pairs.shown6[0], info.dst, size)
    packet = <uint8_t*> malloc(n)
    memcpy(packet, data, n)
    parse_c(packet, n, &info)
    if size == 4:
        header = same_sum(fold_c(sum_c(packet, info.l4_offset, 0)))
    transport = transport_sum(&info, packet)
    c.deep += memcmp(info.src, info.dst, size) != 0
    masquerade_out_c(&pairs, packet, &info, partial)
    if memcmp(info.src, info.dst, size) != 0:
        broken = 1
    masquerade_in_c(&pairs, packet, &info)
    if memcmp(info.dst, &pairs.own4[0] if size == 4 else &pairs.own6[0], size) != 0:
        broken = 2
    if size == 4 and info.proto != 255 and header != same_sum(fold_c(sum_c(packet, info.l4_offset, 0))):
        broken = 3
    if check and not partial and check + 2 <= info.total_bytes and (
            info.proto != 17 or data[check] or data[check + 1]) and transport != transport_sum(&info, packet):
        broken = 4
    for i in range(<uint32_t> n):
        if packet[i] != data[i] and not (info.src <= packet + i < info.src + 2 * size) and (
                i - check > 1 or not check) and not (size == 4 and 10 <= i < 12):
            broken = 5
    free(packet)
    return broken


cdef int json_names(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    cdef int found = inspect_c(c.names, data, n)
    c.deep += found != 0
    return 1 if found & ~3 else 0


cdef int control_message(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """What a kernel hands up beside a datagram, were it wrong."""
    cdef msghdr message
    memset(&message, 0, sizeof(message))
    message.msg_control = <void*> data
    message.msg_controllen = n
    c.deep += udpmsg_gro_size(&message) != 0
    return 0


cdef inline void take_range(ip_range_t* r, const uint8_t* data) noexcept nogil:
    """Four bytes: two ends close to others, at the top or the bottom of the space."""
    cdef uint64_t first = data[0] & 15, last = data[2] & 15, swap
    if data[0] & 16:
        first |= <uint64_t> data[1] << 56
    if data[2] & 16:
        last |= <uint64_t> data[3] << 56
    if data[0] & 32:
        first = ~first
    if data[2] & 32:
        last = ~last
    if first > last:
        swap = first
        first = last
        last = swap
    # Ends in either half of the 128 bits.
    r.first_hi = first
    r.first_lo = 0 if data[0] & 64 else data[1]
    r.last_hi = last
    r.last_lo = ~<uint64_t> 0 if data[2] & 64 else data[3]
    if r.first_hi == r.last_hi and r.first_lo > r.last_lo:
        r.last_lo = r.first_lo


cdef inline bint among(const ip_range_t* list_, size_t n, uint64_t hi, uint64_t lo) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if (list_[i].first_hi < hi or (list_[i].first_hi == hi and list_[i].first_lo <= lo)) and (
                hi < list_[i].last_hi or (hi == list_[i].last_hi and lo <= list_[i].last_lo)):
            return True
    return False


cdef int ranges(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Union, difference and intersection hold what they should at all ends and beside them."""
    cdef ip_range_t raw[16]
    cdef ip_range_t a[16]
    cdef ip_range_t b[16]
    cdef ip_range_t out[64]
    cdef size_t count = n // 4, i, half, a_n, b_n, less_n, both_n
    cdef ip_range_t both[64]
    cdef uint64_t hi, lo
    cdef int step
    cdef bint in_a, in_b
    if count > 16:
        count = 16
    for i in range(count):
        take_range(&raw[i], data + 4 * i)
    half = count // 2
    memcpy(a, raw, half * sizeof(ip_range_t))
    memcpy(b, &raw[half], (count - half) * sizeof(ip_range_t))
    a_n = ranges_normalise(a, half)
    b_n = ranges_normalise(b, count - half)
    less_n = ranges_subtract(a, a_n, b, b_n, out)
    both_n = ranges_intersect(a, a_n, b, b_n, both)
    if less_n > a_n + b_n or both_n > a_n + b_n:
        return 1
    for i in range(count):
        c.deep += 1
        for step in range(-1, 5):
            hi, lo = raw[i].first_hi, raw[i].first_lo
            if step >= 2:
                hi, lo = raw[i].last_hi, raw[i].last_lo
            lo += <uint64_t> <int> (step if step < 2 else step - 3)
            in_a = among(raw, half, hi, lo)
            in_b = among(&raw[half], count - half, hi, lo)
            if (ranges_find(a, a_n, hi, lo) >= 0) != in_a or (ranges_find(b, b_n, hi, lo) >= 0) != in_b:
                return 2
            if (ranges_find(out, less_n, hi, lo) >= 0) != (in_a and not in_b):
                return 3
            if (ranges_find(both, both_n, hi, lo) >= 0) != (in_a and in_b):
                return 4
    return 0


cdef struct known_t:
    uint8_t addr[16]
    uint64_t hi
    int family
    int bits
    int32_t value


cdef inline int family_and_address(const uint8_t* data, uint8_t* addr, int* bits) noexcept nogil:
    """From four bytes: few addresses, so that prefixes nest and meet."""
    cdef int family = 4 if data[0] & 1 else 6
    memset(addr, 0, 16)
    addr[0] = data[1]
    addr[1] = data[2] & 3
    addr[3 if family == 4 else 15] = data[3] & 7
    bits[0] = data[0] >> 1
    if family == 4 and bits[0] > 32:
        bits[0] -= 32
    if family == 4 and bits[0] > 32:
        bits[0] = 32
    return family


cdef inline bint covers(const known_t* known, const uint8_t* addr, int family) noexcept nogil:
    cdef int i
    if known.family != family:
        return False
    for i in range(known.bits):
        if ((known.addr[i >> 3] ^ addr[i >> 3]) >> (7 - (i & 7))) & 1:
            return False
    return True


cdef int prefix_map(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Inserts, removes and look-ups, five bytes each, against a list."""
    cdef known_t known[128]
    cdef int count = 0, family, bits, i, found, best
    cdef uint8_t addr[16]
    cdef lpm_t* table = lpm_new_c()
    cdef size_t at = 0
    cdef int32_t wanted
    cdef int broken = 0
    while at + 5 <= n and not broken:
        family = family_and_address(data + at + 1, addr, &bits)
        found = -1
        best = -1
        for i in range(count):
            if covers(&known[i], addr, family):
                if best < 0 or known[i].bits > known[best].bits:
                    best = i
                if known[i].bits == bits:
                    found = i
        if data[at] < 100 and count < 128:
            if lpm_insert_c(table, addr, family, bits, <int32_t> at) < 0:
                broken = 1
            if found < 0:
                found = count
                count += 1
                known[found].family = family
                known[found].bits = bits
                memcpy(known[found].addr, addr, 16)
            known[found].value = <int32_t> at
        elif data[at] < 160:
            lpm_remove_c(table, addr, family, bits)
            if found >= 0:
                count -= 1
                known[found] = known[count]
        else:
            c.deep += best >= 0
            wanted = known[best].value if best >= 0 else -1
            if lpm_lookup_c(table, addr, family) != wanted:
                broken = 2
            if lpm_get_c(table, addr, family, bits) != (known[found].value if found >= 0 else -1):
                broken = 3
        if table.prefixes != <size_t> count:
            broken = 4
        at += 5
    lpm_free_c(table)
    return broken


cdef int translated_in(context_t* c, uint8_t* packet, size_t n, packet_info_t* info) noexcept nogil:
    """An IPv4 packet with a good header, within the IPv6 one that it was."""
    cdef via_in_t out
    cdef uint32_t source = 0x05004064       # 100.64.0.5 where bytes have the usual order
    if via_in_c(c.via, packet, info, source, 1, 1280, 7, c.tick, &out) != VIA_IN_DONE:
        return 0
    c.deep += 1
    if out.packet < packet or out.packet + out.bytes > packet + info.total_bytes:
        return 1
    if parse_c(out.packet, out.bytes, info) != FAST_OK or info.version != 4 or info.total_bytes != out.bytes:
        return 2
    return 3 if fold_c(sum_c(out.packet, 20, 0)) != 0xffff else 0


cdef int translated_out(context_t* c, const vnet_header_t* vnet, uint8_t* area, packet_info_t* info) noexcept nogil:
    """IPv6 packets that fit the tunnel, unless it is a super packet, which can be cut then."""
    cdef uint8_t made[1280]
    cdef via_out_t out
    cdef segment_plan_t plan
    cdef uint32_t i, size, rest = 0
    cdef via_out_result_t result = via_out_c(c.via, vnet, area + VIA_HEADROOM, info, 1280, c.tick, &out)
    c.deep += <int> result != 0
    if result == VIA_OUT_TOO_BIG:
        size = via_too_big_c(area + VIA_HEADROOM, info, 1280, made)
        return 4 if size > VIA_TOO_BIG_BYTES or parse_c(made, size, info) != FAST_OK or info.proto != 1 else 0
    if result != VIA_OUT_WHOLE and result != VIA_OUT_PARTS:
        return 0
    if out.packet < area or out.bytes > info.total_bytes + VIA_HEADROOM:
        return 5
    if result == VIA_OUT_PARTS:
        for i in range(out.parts):
            size = via_part_c(&out, i, made)
            rest += size - 48
            if size > 1280 or parse_c(made, size, info) != FAST_OK or info.version != 6 or info.total_bytes != size:
                return 6
        return 7 if rest != out.bytes - 40 else 0
    if parse_c(out.packet, out.bytes, info) != FAST_OK or info.version != 6 or info.total_bytes != out.bytes:
        return 8
    if plan_c(&plan, &out.vnet, out.packet, out.bytes) == SEGMENT_OK:
        for i in range(plan.count):
            if piece_bytes_c(&plan, i) > 1280:
                return 9
    return 0


cdef int via(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    cdef vnet_header_t vnet
    cdef packet_info_t info
    cdef uint8_t* area
    cdef size_t size
    cdef int broken = 0
    if n <= VNET_BYTES:
        return 0
    size = n - VNET_BYTES
    memcpy(&vnet, data, VNET_BYTES)
    # Exactly as large as it may be used: with AddressSanitizer a byte more is an error.
    area = <uint8_t*> malloc(VIA_HEADROOM + size)
    memcpy(area + VIA_HEADROOM, data + VNET_BYTES, size)
    if parse_c(area + VIA_HEADROOM, size, &info) == FAST_OK:
        c.tick += (info.src_port & 63) == 5
        if info.version == 6:
            broken = translated_in(c, area + VIA_HEADROOM, size, &info)
        else:
            via_clash_c(c.via, &info, c.tick)
            broken = translated_out(c, &vnet, area, &info)
    free(area)
    return broken


cdef int too_far(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Reads a byte beyond an input that begins with two equal bytes: the loop itself is under test."""
    if n >= 2 and data[0] == data[1]:
        c.deep += data[n]
    return 0


cdef int no_repeats(context_t* c, const uint8_t* data, size_t n) noexcept nogil:
    """Breaks its promise for an input that begins with two equal bytes: the loop itself is under test."""
    return 9 if n >= 2 and data[0] == data[1] else 0


cdef target_t target_of(str name) except NULL:
    if name == "packet":
        return packet
    if name == "checksum":
        return checksum
    if name == "segment":
        return segment
    if name == "coalesce":
        return coalesce
    if name == "filter":
        return filter
    if name == "json_names":
        return json_names
    if name == "control_message":
        return control_message
    if name == "masquerade":
        return masquerade
    if name == "ranges":
        return ranges
    if name == "prefix_map":
        return prefix_map
    if name == "via":
        return via
    if name == "too_far":
        return too_far
    if name == "no_repeats":
        return no_repeats
    raise ValueError(name)


def once(str name not None, bytes data not None, **parts):
    """One input: 0, or the number of the broken promise."""
    return _run(name, [data], 0, 0, parts)


def run(str name not None, list seeds not None, uint64_t executions, uint64_t seed, **parts):
    """(executions that came far, number of the broken promise or 0, the input of that)."""
    return _run(name, seeds, executions, seed, parts)


cdef _run(str name, list seeds, uint64_t executions, uint64_t seed, dict parts):
    cdef context_t* c = <context_t*> calloc(1, sizeof(context_t))
    cdef target_t target = target_of(name)
    cdef Filter program = parts.get("program")
    cdef Filter twin = parts.get("twin")
    cdef FlowTable flows = parts.get("flows")
    cdef NameTable names = parts.get("names")
    cdef Via translator = parts.get("via")
    cdef uint8_t* copy
    cdef int broken = 0
    cdef uint64_t i
    cdef size_t k
    c.program = program.c if program is not None else NULL
    c.twin = twin.c if twin is not None else NULL
    c.flows = flows.c if flows is not None else NULL
    c.names = &names.c if names is not None else NULL
    c.via = &translator.c if translator is not None else NULL
    c.gro = gro_new_c()
    c.fuzz.seeds_n = len(seeds)
    c.fuzz.seeds = <const uint8_t**> calloc(c.fuzz.seeds_n, sizeof(void*))
    c.fuzz.sizes = <size_t*> calloc(c.fuzz.seeds_n, sizeof(size_t))
    if fuzz_open(&c.fuzz, seed) != 0:
        raise MemoryError
    try:
        for k in range(c.fuzz.seeds_n):
            if len(seeds[k]) > FUZZ_LIMIT:
                raise ValueError("a seed is too long")
            c.fuzz.seeds[k] = <const uint8_t*> <const char*> (<bytes> seeds[k])
            c.fuzz.sizes[k] = len(seeds[k])
        if not executions:
            copy = fuzz_copy(&c.fuzz, c.fuzz.seeds[0], c.fuzz.sizes[0])
            broken = target(c, copy, c.fuzz.sizes[0])
            fuzz_free(copy)
            return broken
        with nogil:
            for i in range(executions):
                fuzz_next(&c.fuzz)
                copy = fuzz_copy(&c.fuzz, c.fuzz.scratch, c.fuzz.scratch_n)
                broken = target(c, copy, c.fuzz.scratch_n)
                fuzz_free(copy)
                if broken:
                    break
        return c.deep, broken, (<char*> c.fuzz.scratch)[:c.fuzz.scratch_n] if broken else b""
    finally:
        fuzz_close(&c.fuzz)
        gro_free_c(c.gro)
        free(c.fuzz.seeds)
        free(c.fuzz.sizes)
        free(c)
