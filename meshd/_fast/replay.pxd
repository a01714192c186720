"""C API of the WireGuard replay window (RFC 6479, WireGuard paper 5.4.6)."""

from libc.stdint cimport uint64_t

cdef enum:
    REPLAY_BLOCKS = 128                        # of 64 counters each
    REPLAY_WINDOW = 8128                       # (REPLAY_BLOCKS - 1) * 64: one block is always being filled

cdef extern from *:
    """
    #define REPLAY_REJECT_AFTER (UINT64_MAX - (1u << 13))
    """
    const uint64_t REPLAY_REJECT_AFTER         # 2^64 - 2^13 - 1, WireGuard's REJECT_AFTER_MESSAGES

# All zero is the initial state. One thread per window.
cdef struct replay_t:
    uint64_t last
    uint64_t bitmap[128]


cdef class Window:
    cdef replay_t c


# 1 when the counter is new and inside the window, and marks it; 0 otherwise. Call after authentication only.
cdef inline int replay_accept_c(replay_t* window, uint64_t counter) noexcept nogil:
    cdef uint64_t block, gap, i, bit
    if counter >= REPLAY_REJECT_AFTER:
        return 0
    block = counter >> 6
    if counter > window.last:
        i = window.last >> 6
        gap = block - i
        if gap > REPLAY_BLOCKS:
            gap = REPLAY_BLOCKS
        while gap:
            i += 1
            window.bitmap[i & (REPLAY_BLOCKS - 1)] = 0
            gap -= 1
        window.last = counter
    elif window.last - counter > REPLAY_WINDOW:
        return 0
    bit = <uint64_t>1 << (counter & 63)
    block &= REPLAY_BLOCKS - 1
    if window.bitmap[block] & bit:
        return 0
    window.bitmap[block] |= bit
    return 1
