"""ChaCha20-Poly1305 back ends; the contract is in aead.pyi."""
# freethreading: the chosen back end and the size limit are process-wide and set at import or by select();
# a Cipher owns its contexts and is not locked.

import os

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strcmp

cdef extern from "sodium.h" nogil:
    int sodium_init()
    void sodium_memzero(void* data, size_t n)
    int crypto_aead_chacha20poly1305_ietf_encrypt_detached(
        unsigned char* c, unsigned char* mac, unsigned long long* mac_n, const unsigned char* m, unsigned long long n,
        const unsigned char* ad, unsigned long long ad_n, const unsigned char* nsec, const unsigned char* npub,
        const unsigned char* k)
    int crypto_aead_chacha20poly1305_ietf_decrypt_detached(
        unsigned char* m, unsigned char* nsec, const unsigned char* c, unsigned long long n, const unsigned char* mac,
        const unsigned char* ad, unsigned long long ad_n, const unsigned char* npub, const unsigned char* k)

cdef extern from "aead_openssl.h" nogil:
    int openssl_load()
    void* openssl_ctx_new() noexcept
    void openssl_ctx_free(void* ctx) noexcept
    void openssl_forget(void* ctx) noexcept
    int openssl_seal(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, uint64_t counter,
                     const uint8_t* key) noexcept
    int openssl_open(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, uint64_t counter,
                     const uint8_t* key) noexcept
    int openssl_seal_ad(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, const uint8_t* nonce,
                        const uint8_t* ad, size_t ad_n, const uint8_t* key) noexcept
    int openssl_open_ad(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, const uint8_t* nonce,
                        const uint8_t* ad, size_t ad_n, const uint8_t* key) noexcept

cdef extern from "aead_split.h" nogil:
    int split_load()
    void* split_ctx_new() noexcept
    void split_ctx_free(void* ctx) noexcept
    void split_forget(void* ctx) noexcept
    int split_seal(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, uint64_t counter,
                   const uint8_t* key) noexcept
    int split_open(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, uint64_t counter,
                   const uint8_t* key) noexcept
    int split_seal_ad(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, const uint8_t* nonce,
                      const uint8_t* ad, size_t ad_n, const uint8_t* key) noexcept
    int split_open_ad(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, const uint8_t* nonce,
                      const uint8_t* ad, size_t ad_n, const uint8_t* key) noexcept

cdef extern from "aead_boring.h" nogil:
    const char* BORING_BUILT_IN "MESHD_AEAD_LIBRARY"
    const char* boring_load(const char* path)
    void* boring_ctx_new() noexcept
    void boring_ctx_free(void* ctx) noexcept
    void boring_forget(void* ctx) noexcept
    int boring_seal(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, uint64_t counter,
                    const uint8_t* key) noexcept
    int boring_open(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, uint64_t counter,
                    const uint8_t* key) noexcept
    int boring_seal_ad(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, const uint8_t* nonce,
                       const uint8_t* ad, size_t ad_n, const uint8_t* key) noexcept
    int boring_open_ad(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, const uint8_t* nonce,
                       const uint8_t* ad, size_t ad_n, const uint8_t* key) noexcept

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* at)
    int CLOCK_MONOTONIC

cdef struct auto_ctx_t:
    const aead_backend_t* large
    void* inner                       # context of `large`
    size_t limit

cdef enum:
    LARGE_BACKENDS = 3
    MEASURE_SIZES = 6
    MEASURE_ROUNDS = 5
    MEASURE_REPEATS = 24
    MEASURE_LIMIT_NS = 10_000_000     # the choice must not be felt at start

# Packets of at least this many plaintext bytes go to the libcrypto back end, shorter ones to libsodium.
cdef size_t auto_limit = 512
cdef char sodium_token = 1            # libsodium needs no context; a non-NULL stand-in keeps NULL for failure


cdef void* sodium_ctx_new() noexcept nogil:
    return &sodium_token


cdef void sodium_ctx_free(void* ctx) noexcept nogil:
    pass


cdef void sodium_forget(void* ctx) noexcept nogil:
    pass                              # libsodium wipes what it had on the stack


cdef inline void make_nonce(uint8_t* nonce, uint64_t counter) noexcept nogil:
    memset(nonce, 0, 4)
    store_le64(nonce + 4, counter)


cdef int sodium_seal_ad(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, const uint8_t* nonce,
                        const uint8_t* ad, size_t ad_n, const uint8_t* key32) noexcept nogil:
    return crypto_aead_chacha20poly1305_ietf_encrypt_detached(
        out, out + n, NULL, plain, n, ad, ad_n, NULL, nonce, key32)


cdef int sodium_open_ad(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, const uint8_t* nonce,
                        const uint8_t* ad, size_t ad_n, const uint8_t* key32) noexcept nogil:
    if n < AEAD_TAG_BYTES:
        return -1
    n -= AEAD_TAG_BYTES
    return crypto_aead_chacha20poly1305_ietf_decrypt_detached(
        out, NULL, sealed, n, sealed + n, ad, ad_n, nonce, key32)


cdef int sodium_seal(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, uint64_t counter,
                     const uint8_t* key32) noexcept nogil:
    cdef uint8_t nonce[12]
    make_nonce(nonce, counter)
    return sodium_seal_ad(ctx, out, plain, n, nonce, NULL, 0, key32)


cdef int sodium_open(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, uint64_t counter,
                     const uint8_t* key32) noexcept nogil:
    cdef uint8_t nonce[12]
    make_nonce(nonce, counter)
    return sodium_open_ad(ctx, out, sealed, n, nonce, NULL, 0, key32)


cdef void* auto_ctx_new() noexcept nogil:
    cdef auto_ctx_t* ctx = <auto_ctx_t*>malloc(sizeof(auto_ctx_t))
    if ctx == NULL:
        return NULL
    ctx.large = auto_large
    ctx.limit = auto_limit
    ctx.inner = ctx.large.ctx_new()
    if ctx.inner == NULL:
        free(ctx)
        return NULL
    return ctx


cdef void auto_ctx_free(void* ctx) noexcept nogil:
    if ctx != NULL:
        (<auto_ctx_t*>ctx).large.ctx_free((<auto_ctx_t*>ctx).inner)
        free(ctx)


cdef void auto_forget(void* ctx) noexcept nogil:
    (<auto_ctx_t*>ctx).large.forget((<auto_ctx_t*>ctx).inner)


cdef int auto_seal(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, uint64_t counter,
                   const uint8_t* key32) noexcept nogil:
    cdef auto_ctx_t* own = <auto_ctx_t*>ctx
    if n >= own.limit:
        return own.large.seal(own.inner, out, plain, n, counter, key32)
    return sodium_seal(NULL, out, plain, n, counter, key32)


cdef int auto_open(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, uint64_t counter,
                   const uint8_t* key32) noexcept nogil:
    cdef auto_ctx_t* own = <auto_ctx_t*>ctx
    if n >= own.limit + AEAD_TAG_BYTES:
        return own.large.open(own.inner, out, sealed, n, counter, key32)
    return sodium_open(NULL, out, sealed, n, counter, key32)


cdef int auto_seal_ad(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, const uint8_t* nonce,
                      const uint8_t* ad, size_t ad_n, const uint8_t* key32) noexcept nogil:
    cdef auto_ctx_t* own = <auto_ctx_t*>ctx
    if n >= own.limit:
        return own.large.seal_ad(own.inner, out, plain, n, nonce, ad, ad_n, key32)
    return sodium_seal_ad(NULL, out, plain, n, nonce, ad, ad_n, key32)


cdef int auto_open_ad(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, const uint8_t* nonce,
                      const uint8_t* ad, size_t ad_n, const uint8_t* key32) noexcept nogil:
    cdef auto_ctx_t* own = <auto_ctx_t*>ctx
    if n >= own.limit + AEAD_TAG_BYTES:
        return own.large.open_ad(own.inner, out, sealed, n, nonce, ad, ad_n, key32)
    return sodium_open_ad(NULL, out, sealed, n, nonce, ad, ad_n, key32)


cdef aead_backend_t sodium_backend
sodium_backend.name = "sodium"
sodium_backend.ctx_new = sodium_ctx_new
sodium_backend.ctx_free = sodium_ctx_free
sodium_backend.forget = sodium_forget
sodium_backend.seal = sodium_seal
sodium_backend.open = sodium_open
sodium_backend.seal_ad = sodium_seal_ad
sodium_backend.open_ad = sodium_open_ad

cdef aead_backend_t openssl_backend
openssl_backend.name = "openssl"
openssl_backend.ctx_new = openssl_ctx_new
openssl_backend.ctx_free = openssl_ctx_free
openssl_backend.forget = openssl_forget
openssl_backend.seal = openssl_seal
openssl_backend.open = openssl_open
openssl_backend.seal_ad = openssl_seal_ad
openssl_backend.open_ad = openssl_open_ad

cdef aead_backend_t split_backend
split_backend.name = "split"
split_backend.ctx_new = split_ctx_new
split_backend.ctx_free = split_ctx_free
split_backend.forget = split_forget
split_backend.seal = split_seal
split_backend.open = split_open
split_backend.seal_ad = split_seal_ad
split_backend.open_ad = split_open_ad

cdef aead_backend_t boring_backend
boring_backend.name = "boringssl"
boring_backend.ctx_new = boring_ctx_new
boring_backend.ctx_free = boring_ctx_free
boring_backend.forget = boring_forget
boring_backend.seal = boring_seal
boring_backend.open = boring_open
boring_backend.seal_ad = boring_seal_ad
boring_backend.open_ad = boring_open_ad

# libcrypto has the faster kernels but a fixed cost of some hundred ns per packet; each takes what it is best at.
cdef aead_backend_t auto_backend
auto_backend.name = "auto"
auto_backend.ctx_new = auto_ctx_new
auto_backend.ctx_free = auto_ctx_free
auto_backend.forget = auto_forget
auto_backend.seal = auto_seal
auto_backend.open = auto_open
auto_backend.seal_ad = auto_seal_ad
auto_backend.open_ad = auto_open_ad

cdef const aead_backend_t* chosen = &sodium_backend
cdef const aead_backend_t* auto_large = NULL
# Those of large packets that this machine has, NULL in place of the others.
cdef const aead_backend_t* large_backends[LARGE_BACKENDS]
large_backends[0] = large_backends[1] = large_backends[2] = NULL


cdef const aead_backend_t* default_backend_c() noexcept nogil:
    return chosen


cdef const aead_backend_t* find_backend_c(const char* name) noexcept nogil:
    cdef int i
    if strcmp(name, "sodium") == 0:
        return &sodium_backend
    if strcmp(name, "auto") == 0:
        return &auto_backend if auto_large != NULL else &sodium_backend
    for i in range(LARGE_BACKENDS):
        if large_backends[i] != NULL and strcmp(name, large_backends[i].name) == 0:
            return large_backends[i]
    return NULL


cdef uint64_t now_ns() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <uint64_t>at.tv_sec * 1_000_000_000 + <uint64_t>at.tv_nsec


cdef uint64_t time_seal(const aead_backend_t* backend, void* ctx, uint8_t* buffer, size_t n,
                        const uint8_t* key) noexcept nogil:
    cdef uint64_t start = now_ns()
    cdef int i
    for i in range(MEASURE_REPEATS):
        backend.seal(ctx, buffer, buffer, n, i, key)
    return now_ns() - start


cdef uint64_t best_seal(const aead_backend_t* backend, void* ctx, uint8_t* buffer, size_t n) noexcept nogil:
    cdef uint64_t best = <uint64_t>-1
    cdef uint8_t[32] key
    cdef int _
    memset(key, 0x5a, sizeof(key))
    for _ in range(MEASURE_ROUNDS):
        best = min(best, time_seal(backend, ctx, buffer, n, key))
    return best


cdef size_t find_limit(const aead_backend_t* large, void* ctx, uint8_t* buffer) noexcept nogil:
    """The smallest size from which `large` is faster at this and every greater size, SIZE_MAX for never."""
    cdef size_t* sizes = [1280, 1024, 512, 256, 128, 64]
    cdef size_t limit = <size_t>-1
    cdef uint64_t started = now_ns()
    cdef int i
    for i in range(MEASURE_SIZES):
        if best_seal(large, ctx, buffer, sizes[i]) >= best_seal(&sodium_backend, NULL, buffer, sizes[i]):
            break
        limit = sizes[i]
        if now_ns() - started > MEASURE_LIMIT_NS / 2:
            break
    return limit


cdef int choose_auto() except -1:
    """Measures and sets `chosen` to the fastest; about 1 ms."""
    global auto_large, auto_limit, chosen
    cdef uint8_t* buffer = <uint8_t*>malloc(2048)
    cdef void* ctx
    cdef uint64_t took, best = <uint64_t>-1
    cdef int i
    chosen = &sodium_backend
    auto_large = NULL
    if buffer == NULL:
        raise MemoryError
    memset(buffer, 0, 2048)
    for i in range(LARGE_BACKENDS):
        if large_backends[i] == NULL:
            continue
        ctx = large_backends[i].ctx_new()
        if ctx == NULL:
            free(buffer)
            raise MemoryError
        took = best_seal(large_backends[i], ctx, buffer, 1280)
        if took < best:
            best = took
            auto_large = large_backends[i]
            auto_limit = find_limit(auto_large, ctx, buffer)
        large_backends[i].ctx_free(ctx)
    free(buffer)
    if auto_large != NULL and auto_limit != <size_t>-1:
        chosen = &auto_backend
    return 0


def available():
    """Names that select() takes on this machine."""
    cdef int i
    names = ["auto", "sodium"]
    for i in range(LARGE_BACKENDS):
        if large_backends[i] != NULL:
            names.append(large_backends[i].name.decode())
    return tuple(names)


def selected():
    """The back end in use; for "auto" with the back end of large packets and the size at which they begin."""
    if chosen == &auto_backend:
        return "auto", auto_large.name.decode(), auto_limit
    return chosen.name.decode(), chosen.name.decode(), 0


def select(str name not None):
    """Chooses the back end for contexts made from now on."""
    global chosen
    cdef bytes wanted
    if name == "auto":
        choose_auto()
        return
    if name not in available():
        raise ValueError(f"AEAD back end {name!r} is not available (have: {', '.join(available())})")
    wanted = name.encode()
    chosen = find_backend_c(wanted)


cdef class Cipher:
    """One back end with its context."""

    def __cinit__(self, name=None):
        cdef bytes wanted
        if name is None:
            self.backend = chosen
        else:
            wanted = name.encode()
            self.backend = find_backend_c(wanted)
            if self.backend == NULL:
                raise ValueError(f"AEAD back end {name!r} is not available (have: {', '.join(available())})")
        self.ctx = self.backend.ctx_new()
        if self.ctx == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.ctx != NULL:
            self.backend.ctx_free(self.ctx)

    @property
    def name(self):
        """Name of the back end."""
        return self.backend.name.decode()

    def seal_into(self, uint8_t[::1] out not None, const uint8_t[::1] plain not None, uint64_t counter,
                  const uint8_t[::1] key not None):
        """Seals plain into out[:len(plain) + 16]; returns that length."""
        cdef size_t n = plain.shape[0]
        if <size_t>out.shape[0] < n + AEAD_TAG_BYTES:
            raise ValueError("output shorter than plaintext and tag")
        check_key(key)
        check_overlap(&out[0], n + AEAD_TAG_BYTES, &plain[0] if n else NULL, n)
        if self.backend.seal(self.ctx, &out[0], &plain[0] if n else &out[0], n, counter, &key[0]) != 0:
            raise RuntimeError("sealing failed")
        return n + AEAD_TAG_BYTES

    def open_into(self, uint8_t[::1] out not None, const uint8_t[::1] sealed not None, uint64_t counter,
                  const uint8_t[::1] key not None):
        """Opens sealed into out; the plaintext length, or -1 when it is not authentic."""
        cdef size_t n = sealed.shape[0]
        cdef uint8_t nothing
        if n < AEAD_TAG_BYTES:
            return -1
        if <size_t>out.shape[0] < n - AEAD_TAG_BYTES:
            raise ValueError("output shorter than plaintext")
        check_key(key)
        cdef uint8_t* to = &out[0] if out.shape[0] else &nothing
        check_overlap(to, n - AEAD_TAG_BYTES, &sealed[0], n)
        if self.backend.open(self.ctx, to, &sealed[0], n, counter, &key[0]) != 0:
            return -1
        return n - AEAD_TAG_BYTES

    def forget(self):
        """Wipes the key of the last packet."""
        self.backend.forget(self.ctx)

    def seal(self, const uint8_t[::1] plain not None, const uint8_t[::1] nonce not None,
             const uint8_t[::1] key not None, const uint8_t[::1] ad not None):
        """Ciphertext and tag, for any nonce of 12 bytes and with additional data."""
        cdef size_t n = plain.shape[0], ad_n = ad.shape[0]
        cdef bytearray sealed = bytearray(n + AEAD_TAG_BYTES)
        cdef uint8_t* to = sealed
        check_key(key)
        check_nonce(nonce)
        if self.backend.seal_ad(self.ctx, to, &plain[0] if n else to, n, &nonce[0], &ad[0] if ad_n else NULL, ad_n,
                                &key[0]) != 0:
            raise RuntimeError("sealing failed")
        return bytes(sealed)

    def open(self, const uint8_t[::1] sealed not None, const uint8_t[::1] nonce not None,
             const uint8_t[::1] key not None, const uint8_t[::1] ad not None):
        """The plaintext, None when the message is not authentic."""
        cdef size_t n = sealed.shape[0], ad_n = ad.shape[0]
        cdef bytearray plain
        cdef uint8_t* to
        check_key(key)
        check_nonce(nonce)
        if n < AEAD_TAG_BYTES:
            return None
        plain = bytearray(n)
        to = plain
        if self.backend.open_ad(self.ctx, to, &sealed[0], n, &nonce[0], &ad[0] if ad_n else NULL, ad_n,
                                &key[0]) != 0:
            return None
        return bytes(plain[:n - AEAD_TAG_BYTES])

    def seal_transport(self, const uint8_t[::1] packet not None, receiver, counter, const uint8_t[::1] key not None,
                       size_t mtu=0):
        """A whole WireGuard transport message around one IP packet (or nothing: a keepalive)."""
        cdef uint32_t index = receiver
        cdef uint64_t nonce = counter
        check_key(key)
        cdef size_t n = packet.shape[0]
        cdef size_t padded = n + transport_padding_c(n, mtu)
        cdef bytearray message = bytearray(padded + TRANSPORT_OVERHEAD_BYTES)
        cdef uint8_t* to = message
        if n:
            memcpy(to + TRANSPORT_HEADER_BYTES, &packet[0], n)
        if transport_seal_c(self.backend, self.ctx, to, padded, index, nonce, &key[0]) != 0:
            raise RuntimeError("sealing failed")
        return bytes(message)

    def open_transport(self, const uint8_t[::1] message not None, const uint8_t[::1] key not None):
        """(receiver index, counter, padded plaintext) of a transport message, None when it is not authentic."""
        cdef uint32_t receiver
        cdef uint64_t counter
        cdef size_t n = message.shape[0]
        check_key(key)
        if n == 0 or not transport_parse_c(&message[0], n, &receiver, &counter):
            return None
        cdef bytearray plain = bytearray(n - TRANSPORT_HEADER_BYTES)
        cdef uint8_t* to = plain
        if self.backend.open(self.ctx, to, &message[TRANSPORT_HEADER_BYTES], n - TRANSPORT_HEADER_BYTES, counter,
                             &key[0]) != 0:
            return None
        return receiver, counter, bytes(plain[:n - TRANSPORT_OVERHEAD_BYTES])


cdef int check_key(const uint8_t[::1] key) except -1:
    if key.shape[0] != AEAD_KEY_BYTES:
        raise ValueError("key must be 32 bytes")
    return 0


cdef int check_nonce(const uint8_t[::1] nonce) except -1:
    if nonce.shape[0] != 12:
        raise ValueError("nonce must be 12 bytes")
    return 0


cdef int check_overlap(const uint8_t* out, size_t out_n, const uint8_t* data, size_t data_n) except -1:
    """Buffers must be the same start or apart: a shifted overlap would be overwritten while it is read."""
    if out == data or data_n == 0 or out_n == 0 or out + out_n <= data or data + data_n <= out:
        return 0
    raise ValueError("buffers overlap without being the same")


cdef Cipher shared = None


cdef Cipher current():
    global shared
    if shared is None or shared.backend != chosen:
        shared = Cipher()
    return shared


def seal_into(out, plain, counter, key):
    """Cipher.seal_into of the selected back end."""
    return current().seal_into(out, plain, counter, key)


def open_into(out, sealed, counter, key):
    """Cipher.open_into of the selected back end."""
    return current().open_into(out, sealed, counter, key)


if sodium_init() < 0:
    raise ImportError("libsodium cannot be initialised (no random source?)")


def load_library(path):
    """Adds the back end "boringssl"; select() must follow for it to be used."""
    cdef bytes name = os.fsencode(path)
    cdef const char* refusal = boring_load(name)
    if refusal != NULL:
        raise ValueError(f"MESHD_AEAD_LIBRARY={os.fsdecode(path)}: {refusal.decode()}")
    large_backends[2] = &boring_backend


if openssl_load():
    large_backends[0] = &openssl_backend
    if split_load():
        large_backends[1] = &split_backend
_library = os.environ.get("MESHD_AEAD_LIBRARY") or os.fsdecode(<bytes> BORING_BUILT_IN)
if _library:
    load_library(_library)
select(os.environ.get("MESHD_AEAD", "auto") or "auto")
