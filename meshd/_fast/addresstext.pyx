"""Addresses, endpoints, keys and times from their usual text; the contract is in addresstext.pyi."""
# freethreading: the shared state is V4 and V6, set once to what they will always be.

from cpython.object cimport PyTypeObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy


cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET
    int AF_INET6
    int inet_pton(int family, const char* text, void* out)
    const char* inet_ntop(int family, const void* address, char* out, unsigned int size)

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    object PyUnicode_FromStringAndSize(const char* text, Py_ssize_t size)

cdef extern from "address.h" nogil:
    uint32_t load_be32(const uint8_t* p)
    uint64_t load_be64(const uint8_t* p)
    void store_be32(uint8_t* p, uint32_t value)
    void store_be64(uint8_t* p, uint64_t value)

ctypedef object (*new_t)(object kind, object arguments, void* names)

cdef enum:
    HOST_LIMIT = 46                 # the longest address text and a NUL
    KEY_BYTES = 32
    MAX_PORT = 65535
    UTC_LENGTH = 20                 # 2006-01-02T15:04:05Z
    DAY_S = 86400
    CGNAT_NET = 0x64400000          # 100.64.0.0/10
    CGNAT_MASK = 0xffc00000
    SERVICE4 = 0x64646464           # 100.100.100.100

cdef double END_OF_TIMES = 253402300800.0   # the year 10000
cdef uint64_t ULA = 0xfd7a115ca1e00000U     # fd7a:115c:a1e0::/48; the service address is ::53 in it

cdef int[13] LONG_MONTHS = [0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1]
cdef tuple NOTHING = ()
cdef object V4 = None   # of ipaddress; loaded with the first address, which the command line seldom makes
cdef object V6 = None


cdef inline object new(object kind):
    """An instance without __init__, which would check again what is known."""
    return (<new_t> (<PyTypeObject*> kind).tp_new)(kind, NOTHING, NULL)


cdef inline object bare(object kind):
    """An instance of a class that has a __new__ in Python, without calling that either."""
    return (<new_t> (<PyTypeObject*> object).tp_new)(kind, NOTHING, NULL)


cdef void load_classes() except *:
    global V4, V6
    from ipaddress import IPv4Address, IPv6Address
    V4 = IPv4Address
    V6 = IPv6Address


cdef object address4(uint32_t number):
    if V4 is None:
        load_classes()
    out = new(V4)
    out._ip = number
    return out


cdef object address_of(const char* text, Py_ssize_t n, bint unmap):
    """The address written in n characters; None when it is none."""
    cdef char host[HOST_LIMIT]
    cdef uint8_t raw[16]
    cdef uint64_t hi, lo
    if not 0 < n < HOST_LIMIT:
        return None
    memcpy(host, text, n)
    host[n] = 0
    if memchr(text, ord(":"), n) == NULL:
        return address4(load_be32(raw)) if inet_pton(AF_INET, host, raw) == 1 else None
    if inet_pton(AF_INET6, host, raw) != 1:
        return None
    hi = load_be64(raw)
    lo = load_be64(raw + 8)
    if unmap and hi == 0 and lo >> 32 == 0xffff:
        return address4(<uint32_t> lo)
    if V6 is None:
        load_classes()
    out = new(V6)
    out._ip = (<object> hi) << 64 | <object> lo
    out._scope_id = None
    return out


cdef inline const char* plain(object text, Py_ssize_t* size) except? NULL:
    """The characters of an ASCII text without NUL; else a text that nothing accepts."""
    cdef const char* out
    if not PyUnicode_IS_COMPACT_ASCII(text):
        size[0] = 0
        return b""
    out = PyUnicode_AsUTF8AndSize(text, size)
    if memchr(out, 0, size[0]) != NULL:
        size[0] = 0
    return out


cdef bint is_prefix(object text) except -1:
    """Whether it is an address of either family, a slash and a length without leading zeros."""
    cdef Py_ssize_t n = 0, length
    cdef const char* raw = plain(text, &n)
    cdef char host[HOST_LIMIT]
    cdef uint8_t out[16]
    cdef int bits = 0, digits = 0
    cdef bint six
    while digits < 4 and n - digits > 0 and c"0" <= raw[n - digits - 1] <= c"9":
        digits += 1
    length = n - digits - 1
    if not 0 < digits < 4 or not 0 < length < HOST_LIMIT or raw[length] != c"/":
        return False
    bits = number_of(raw + length + 1, digits)
    six = memchr(raw, ord(":"), length) != NULL
    if bits > (128 if six else 32) or (digits > 1 and raw[length + 1] == c"0"):
        return False
    memcpy(host, raw, length)
    host[length] = 0
    return inet_pton(AF_INET6 if six else AF_INET, host, out) == 1


def host_of(str text not None, /):
    """The address of a /32 or /128."""
    cdef Py_ssize_t n = 0
    cdef const char* raw = plain(text, &n)
    cdef bint six = n > 4 and memcmp(raw + n - 4, b"/128", 4) == 0
    if not six and (n < 4 or memcmp(raw + n - 3, b"/32", 3) != 0):
        return None
    n -= 4 if six else 3
    if (memchr(raw, ord(":"), n) != NULL) != six:
        return None
    return address_of(raw, n, False)


def node_prefixes(tuple texts not None, kind4 not None, kind6 not None, /):
    """The prefixes of usual node addresses."""
    cdef Py_ssize_t i, k
    cdef list out = [], numbers = []
    for i in range(len(texts)):
        address = host_of(texts[i])
        if address is None:
            return None
        number = address._ip
        for k in range(i):
            if numbers[k] == number:
                return None
        numbers.append(number)
        if type(address) is V4:
            if <uint32_t> number & CGNAT_MASK != CGNAT_NET or number == SERVICE4:
                return None
            prefix = bare(kind4)
        else:
            if number >> 80 != ULA >> 16 or <uint64_t> (number & 0xffffffffffffffff) == 0x53:
                return None
            prefix = bare(kind6)
        prefix.network_address = address
        out.append(prefix)
    return tuple(out)


def host_texts(tuple prefixes not None, /):
    """The addresses of prefixes."""
    cdef char text[HOST_LIMIT]
    cdef uint8_t raw[16]
    cdef uint64_t hi, lo
    cdef list out = []
    if V4 is None:
        load_classes()
    for prefix in prefixes:
        address = prefix.network_address
        number = address._ip
        if type(address) is V4:
            store_be32(raw, number)
            inet_ntop(AF_INET, raw, text, sizeof(text))
        else:
            hi, lo = number >> 64, number & 0xffffffffffffffff
            if hi >> 32 == 0 or type(address) is not V6 or address._scope_id is not None:
                out.append(str(address))    # the system writes some of these with dots
                continue
            store_be64(raw, hi)
            store_be64(raw + 8, lo)
            inet_ntop(AF_INET6, raw, text, sizeof(text))
        out.append(text.decode("ascii"))
    return out


def endpoint_of(str text not None, /):
    """Address and port."""
    return endpoint(text)


def endpoints_of(tuple texts not None, kind not None, /):
    """Addresses and ports that can be sent to."""
    cdef Py_ssize_t i
    cdef list out = []
    for i in range(len(texts)):
        pair = endpoint(texts[i])
        if pair is None or not (<tuple> pair)[1]:
            return None
        address = (<tuple> pair)[0]
        number = address._ip
        if not number or (number >> 28 == 0xe if type(address) is V4 else number >> 120 == 0xff):
            return None
        out.append((<new_t> (<PyTypeObject*> tuple).tp_new)(kind, (pair,), NULL))
    return tuple(out)


cdef object endpoint(object text):
    cdef Py_ssize_t n = 0, digits = 0
    cdef const char* raw = plain(text, &n)
    cdef uint32_t port = 0, place = 1
    while digits < 6 and n - digits > 0 and c"0" <= raw[n - digits - 1] <= c"9":
        port += <uint32_t> (raw[n - digits - 1] - c"0") * place
        place *= 10
        digits += 1
    n -= digits + 1
    if not 0 < digits < 6 or n < 1 or raw[n] != c":" or port > MAX_PORT or (digits > 1 and raw[n + 1] == c"0"):
        return None
    if raw[0] == c"[":
        if raw[n - 1] != c"]" or memchr(raw + 1, ord(":"), n - 1) == NULL:
            return None
        address = address_of(raw + 1, n - 2, True)
    else:
        address = None if memchr(raw, ord(":"), n) != NULL else address_of(raw, n, False)
    return None if address is None else (address, port)


cdef inline int nibble(char c) noexcept nogil:
    if c"0" <= c <= c"9":
        return c - c"0"
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    if c"A" <= c <= c"F":
        return c - c"A" + 10
    return -1


def key_of(str text not None, str prefix not None, /):
    """The 32 bytes of a key."""
    return key(text, prefix)


cdef object key(object text, object prefix):
    cdef Py_ssize_t n = 0, head = 0, i
    cdef const char* start = plain(prefix, &head)
    cdef const char* raw = plain(text, &n)
    cdef uint8_t out[KEY_BYTES]
    cdef int high, low
    if n != head + 1 + 2 * KEY_BYTES or memcmp(raw, start, head) != 0 or raw[head] != c":":
        return None
    raw += head + 1
    for i in range(KEY_BYTES):
        high = nibble(raw[2 * i])
        low = nibble(raw[2 * i + 1])
        if high < 0 or low < 0:
            return None
        out[i] = <uint8_t> (high << 4 | low)
    return (<char*> out)[:KEY_BYTES]


cdef inline int number_of(const char* text, int n) noexcept nogil:
    """n digits; less than 0 when one is none."""
    cdef int out = 0, i
    for i in range(n):
        if not c"0" <= text[i] <= c"9":
            return -1
        out = out * 10 + (text[i] - c"0")
    return out


def utc_of(str text not None, /):
    """Unix seconds of a time that ends in Z and has no fraction."""
    return utc(text)


cdef object utc(object text):
    cdef Py_ssize_t n = 0
    cdef const char* raw = plain(text, &n)
    cdef int year, month, day, hour, minute, second
    cdef int64_t era_year, days
    if (n != UTC_LENGTH or raw[4] != c"-" or raw[7] != c"-" or raw[10] != c"T" or raw[13] != c":"
            or raw[16] != c":" or raw[19] != c"Z"):
        return None
    year, month, day = number_of(raw, 4), number_of(raw + 5, 2), number_of(raw + 8, 2)
    hour, minute, second = number_of(raw + 11, 2), number_of(raw + 14, 2), number_of(raw + 17, 2)
    if (year < 1970 or not 1 <= month <= 12 or not 1 <= day <= 30 + LONG_MONTHS[month]
            or not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59):
        return None
    if month == 2 and day > (29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28):
        return None
    # The year is counted from March, so that the leap day is its last one.
    era_year = year - (month <= 2)
    days = (era_year * 365 + era_year // 4 - era_year // 100 + era_year // 400
            + (153 * (month + (9 if month <= 2 else -3)) + 2) // 5 + day - 1 - 719468)
    return <double> (days * DAY_S + hour * 3600 + minute * 60 + second)


cdef inline void digits(char* out, int value, int n) noexcept nogil:
    while n:
        n -= 1
        out[n] = <char> (c"0" + value % 10)
        value //= 10


def utc_text(double wall, /):
    """The text that `utc_of` reads."""
    cdef char out[UTC_LENGTH]
    cdef int64_t seconds, days, era, day_of_era, year_of_era, day, year
    cdef int clock, month
    if not 0 <= wall < END_OF_TIMES or wall != <double> <int64_t> wall:
        return None
    seconds = <int64_t> wall
    days, clock = seconds // DAY_S, <int> (seconds % DAY_S)
    # Years are counted from March, in eras of 400, as in utc().
    days += 719468
    era = days // 146097
    day_of_era = days - era * 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = <int> ((5 * day + 2) // 153)
    day -= (153 * month + 2) // 5
    month += 3 if month < 10 else -9
    year = year_of_era + era * 400 + (month <= 2)
    memcpy(out, b"0000-00-00T00:00:00Z", UTC_LENGTH)
    digits(out, <int> year, 4)
    digits(out + 5, month, 2)
    digits(out + 8, <int> day + 1, 2)
    digits(out + 11, clock // 3600, 2)
    digits(out + 14, clock // 60 % 60, 2)
    digits(out + 17, clock % 60, 2)
    return PyUnicode_FromStringAndSize(out, UTC_LENGTH)


def quoted_plain(str text not None, /):
    """JSON of a text in which nothing needs an escape."""
    cdef Py_ssize_t n = 0, i
    cdef const char* raw
    if not PyUnicode_IS_COMPACT_ASCII(text):
        return None
    raw = PyUnicode_AsUTF8AndSize(text, &n)
    for i in range(n):
        if raw[i] < 32 or raw[i] == 127 or raw[i] == c'"' or raw[i] == c"\\":
            return None
    return '"' + text + '"'


cdef class TextForms:
    """Which attributes of an object hold text of which form."""
    cdef list _names, _kinds
    cdef list _defaults

    def __cinit__(self, forms not None):
        self._names, self._kinds, self._defaults = [], [], []
        for name, kind, default in forms:
            if kind not in ("time", "prefix", "endpoint") and not kind.endswith("key"):
                raise ValueError(f"there is no form {kind!r}")
            self._names.append(name)
            self._kinds.append(kind)
            self._defaults.append(default)

    def unusual(self, value, /):
        """The first attribute with a text that is not of the usual form; None when there is none."""
        cdef Py_ssize_t i
        for i in range(len(self._names)):
            text = getattr(value, self._names[i])
            if text is None or text is self._defaults[i]:
                continue
            kind = self._kinds[i]
            if type(text) is tuple:
                for one in <tuple> text:
                    if not usual(one, kind):
                        return self._names[i]
            elif not usual(text, kind):
                return self._names[i]
        return None


cdef bint usual(object text, object kind) except -1:
    if type(text) is not str:
        return False
    if kind == "prefix":
        return is_prefix(text)
    if kind == "endpoint":
        return endpoint(text) is not None
    if kind == "time":
        return utc(text) is not None
    return key(text, kind) is not None
