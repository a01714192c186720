"""Changes known inputs at random, a million times a second: the byte part of `tests.fuzz.mutation`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

cdef enum:
    GROWTH = 70000              # room beyond the limit for what one change may add


cdef class ByteMutator:
    """Makes inputs of at most ``limit`` bytes; the same seeds in the same order give the same inputs again."""

    cdef uint64_t state
    cdef size_t limit
    cdef uint8_t* out
    cdef list known
    cdef list words

    def __cinit__(self, uint64_t seed, size_t limit, list words not None):
        self.state = seed * <uint64_t> 0x9E3779B97F4A7C15 | 1
        self.limit = limit
        self.words = [bytes(word) for word in words]
        if max(map(len, self.words), default=0) > GROWTH:
            raise ValueError("a word is too long")
        self.known = []
        self.out = <uint8_t*> malloc(limit + GROWTH)
        if self.out == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.out)

    cdef inline uint64_t bits(self) noexcept:
        cdef uint64_t x = self.state
        x ^= x << 13
        x ^= x >> 7
        x ^= x << 17
        self.state = x
        return x * <uint64_t> 0x2545F4914F6CDD1D >> 8

    def add(self, bytes data not None):
        """One more input to start from."""
        self.known.append(data[:self.limit])

    def next(self):
        """A changed one: half of the time of the newest, for what they reach was hardly tried yet."""
        cdef uint64_t r = self.bits()
        cdef size_t count = len(self.known)
        if r & 1 or count < 16:
            return self.change(<bytes> self.known[(r >> 16) % count])
        return self.change(<bytes> self.known[count - 1 - (r >> 16) % 8])

    cpdef bytes change(self, bytes data):
        cdef size_t n = PyBytes_GET_SIZE(data), at, k, size
        cdef uint64_t r
        cdef uint8_t* out = self.out
        cdef int rounds
        cdef bytes other
        if n > self.limit:
            n = self.limit
        memcpy(out, PyBytes_AS_STRING(data), n)
        r = self.bits()
        rounds = 1 if r & 4 else 2 if r & 2 else 3 + 3 * <int> (r & 1)
        while rounds:
            rounds -= 1
            r = self.bits()
            at = (r >> 8 & 0xFFFFFF) % (n + 1)
            k = r & 15
            if k < 5:
                if at < n:
                    out[at] = <uint8_t> (r >> 40)
            elif k < 7:
                if at < n:
                    out[at] ^= <uint8_t> (1 << (r >> 40 & 7))
            elif k < 11:        # a word, over what is there or into it
                other = <bytes> self.words[(r >> 32) % <size_t> len(self.words)]
                size = PyBytes_GET_SIZE(other)
                if k == 10:
                    memmove(out + at + size, out + at, n - at)
                    n += size
                elif at + size > n:
                    n = at + size
                memcpy(out + at, PyBytes_AS_STRING(other), size)
            elif k == 11:
                size = min(1 + (r >> 40 & 15), n - at)
                memmove(out + at, out + at + size, n - at - size)
                n -= size
            elif k == 12:
                n = at
            elif k == 13:       # a part stands twice
                size = min(1 + (r >> 40 & 63), n - at)
                memmove(out + at + size, out + at, n - at)
                n += size
            elif k == 14 and self.known:        # the end of another one
                other = <bytes> self.known[(r >> 40) % <size_t> len(self.known)]
                size = PyBytes_GET_SIZE(other)
                size -= (r >> 24) % (size + 1)
                memcpy(out + at, PyBytes_AS_STRING(other) + PyBytes_GET_SIZE(other) - size, size)
                n = at + size
            else:
                out[n] = <uint8_t> (r >> 40)
                out[n + 1] = <uint8_t> (r >> 48)
                n += 2
            if n > self.limit:
                n = self.limit
        return PyBytes_FromStringAndSize(<char*> out, n)
