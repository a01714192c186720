"""Prefix arithmetic; the contract is in ipprefix.pyi."""
# freethreading: a Prefix is immutable; no shared state.

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET
    int AF_INET6
    int inet_pton(int family, const char* text, void* out)
    const char* inet_ntop(int family, const void* address, char* out, unsigned int n)

cdef enum:
    TEXT_BYTES = 64


cdef int family_of(bytes address) except -1:
    if len(address) == 4:
        return 4
    if len(address) == 16:
        return 6
    raise ValueError("an address is 4 or 16 bytes")


cdef int range_from(ip_range_t* r, bytes first, bytes last) except -1:
    cdef int family = family_of(first)
    if len(last) != len(first):
        raise ValueError("the ends of a range must be of one family")
    if first > last:
        raise ValueError("the range is reversed")
    range_load_c(r, <const uint8_t*><const char*>first, <const uint8_t*><const char*>last, family)
    return family


cdef bytes packed(int family, uint64_t hi, uint64_t lo):
    cdef uint8_t[16] out
    address_store_c(out, family, hi, lo)
    return out[:4 if family == 4 else 16]


cdef Prefix prefix_make(int family, uint64_t hi, uint64_t lo, int bits):
    cdef Prefix out = Prefix.__new__(Prefix)
    out.family = family
    out.bits = bits
    out.hi = hi
    out.lo = lo
    return out


cdef int append_prefixes(list out, int family, ip_range_t r) except -1:
    cdef uint64_t hi = 0, lo = 0
    cdef int bits = 0, more = 1
    while more:
        more = range_take_prefix(&r, &hi, &lo, &bits)
        out.append(prefix_make(family, hi, lo, bits))
    return 0


cdef Prefix prefix_checked(bytes address, int bits, bint strict):
    cdef int family = family_of(address)
    cdef uint64_t hi = 0, lo = 0
    if not 0 <= bits <= width_c(family):
        raise ValueError(f"prefix length {bits} does not exist in IPv{family}")
    address_load_c(<const uint8_t*><const char*>address, family, &hi, &lo)
    if strict and (hi & ~mask_hi(bits) or lo & ~mask_lo(bits)):
        raise ValueError(f"{format_address(address)}/{bits} has bits beyond its length")
    return prefix_make(family, hi & mask_hi(bits), lo & mask_lo(bits), bits)


cdef class Prefix:
    """An IPv4 or IPv6 prefix without host bits; immutable and hashable."""

    def __init__(self, bytes address not None, int bits):
        cdef Prefix made = prefix_checked(address, bits, True)
        if self.family:
            raise TypeError("a Prefix cannot be changed")
        self.family = made.family
        self.bits = made.bits
        self.hi = made.hi
        self.lo = made.lo

    @staticmethod
    def masked(bytes address not None, int bits):
        """The prefix of this length that contains the address."""
        return prefix_checked(address, bits, False)

    @staticmethod
    def parse(str text not None):
        """From "address/length" or a single address."""
        address, slash, length = text.partition("/")
        packed_address = parse_address(address)
        if not slash:
            return prefix_checked(packed_address, len(packed_address) * 8, True)
        if not (length.isascii() and length.isdigit()) or len(length) > 3 or (length[0] == "0" and length != "0"):
            raise ValueError(f"{text!r} is not a prefix")
        return prefix_checked(packed_address, int(length), True)

    @property
    def address(self):
        """The packed first address."""
        return packed(self.family, self.hi, self.lo)

    @property
    def last(self):
        """The packed last address."""
        return packed(self.family, self.hi | ~mask_hi(self.bits), self.lo | ~mask_lo(self.bits))

    @property
    def is_host(self):
        """Whether it is a single address."""
        return self.bits == width_c(self.family)

    def __contains__(self, bytes address not None):
        cdef uint64_t hi = 0, lo = 0
        if family_of(address) != self.family:
            return False
        address_load_c(<const uint8_t*><const char*>address, self.family, &hi, &lo)
        return equal_bits(hi, lo, self.hi, self.lo) >= self.bits

    def contains(self, Prefix other not None):
        """Whether every address of other is in this prefix."""
        return (self.family == other.family and self.bits <= other.bits
                and equal_bits(self.hi, self.lo, other.hi, other.lo) >= self.bits)

    def overlaps(self, Prefix other not None):
        """Whether the two have an address in common."""
        return (self.family == other.family
                and equal_bits(self.hi, self.lo, other.hi, other.lo) >= min(self.bits, other.bits))

    def supernet(self, int bits):
        """The prefix of `bits` <= self.bits that contains this one."""
        if not 0 <= bits <= self.bits:
            raise ValueError(f"/{bits} is not a supernet length of {self}")
        return prefix_make(self.family, self.hi & mask_hi(bits), self.lo & mask_lo(bits), bits)

    def subtract(self, Prefix other not None):
        """The fewest prefixes that make up this one without other, in order."""
        cdef ip_range_t mine, theirs
        cdef ip_range_t[2] left
        cdef size_t n, i
        cdef list out = []
        if not self.overlaps(other):
            return [self]
        range_of_prefix(&mine, self.hi, self.lo, self.bits)
        range_of_prefix(&theirs, other.hi, other.lo, other.bits)
        n = ranges_subtract(&mine, 1, &theirs, 1, left)
        for i in range(n):
            append_prefixes(out, self.family, left[i])
        return out

    def __eq__(self, other):
        if not isinstance(other, Prefix):
            return NotImplemented
        cdef Prefix that = other
        return (self.family == that.family and self.bits == that.bits and self.hi == that.hi and self.lo == that.lo)

    def __lt__(self, other):
        if not isinstance(other, Prefix):
            return NotImplemented
        cdef Prefix that = other
        if self.family != that.family:
            return self.family < that.family
        if self.hi != that.hi:
            return self.hi < that.hi
        if self.lo != that.lo:
            return self.lo < that.lo
        return self.bits < that.bits

    def __hash__(self):
        return hash((self.family, self.bits, self.hi, self.lo))

    def __str__(self):
        return f"{format_address(self.address)}/{self.bits}"

    def __repr__(self):
        return f"Prefix.parse({str(self)!r})"

    def __reduce__(self):
        return Prefix, (self.address, self.bits)


def summarize(bytes first not None, bytes last not None, /):
    """The fewest prefixes that make up the inclusive range, in order."""
    cdef ip_range_t r
    cdef int family = range_from(&r, first, last)
    cdef list out = []
    append_prefixes(out, family, r)
    return out


def parse_address(str text not None, /):
    """The packed form of an IPv4 or IPv6 address."""
    cdef uint8_t[16] out
    cdef bytes raw
    cdef bint six = ":" in text
    # An address has at most 45 characters; non-ASCII and NUL never occur in one.
    if len(text) <= 45 and text.isascii() and "\0" not in text:
        raw = text.encode()
        if inet_pton(AF_INET6 if six else AF_INET, raw, out) == 1:
            return out[:16] if six else out[:4]
    raise ValueError(f"{text[:60]!r} is not an IP address")


def format_address(bytes address not None, /):
    """The text form of a packed address (RFC 5952 for IPv6)."""
    cdef char[TEXT_BYTES] text
    cdef int family = family_of(address)
    inet_ntop(AF_INET if family == 4 else AF_INET6, <const char*>address, text, TEXT_BYTES)
    return (<const char*>text).decode("ascii")
