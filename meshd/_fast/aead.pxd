"""C API of ChaCha20-Poly1305 (RFC 8439) with counter nonces, and of WireGuard's transport framing."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "address.h" nogil:
    uint32_t load_le32(const uint8_t* p)
    uint64_t load_le64(const uint8_t* p)
    void store_le32(uint8_t* p, uint32_t v)
    void store_le64(uint8_t* p, uint64_t v)

cdef enum:
    AEAD_KEY_BYTES = 32
    AEAD_TAG_BYTES = 16
    TRANSPORT_HEADER_BYTES = 16     # type u32, receiver u32, counter u64, all little-endian (WireGuard paper 5.4.6)
    TRANSPORT_OVERHEAD_BYTES = 32   # header and tag
    TRANSPORT_TYPE = 4

# The nonce is 4 zero bytes and the counter as little-endian u64; there is no associated data.
# A context belongs to one thread at a time. ctx_new gives NULL when memory is short.
cdef struct aead_backend_t:
    const char* name
    void* (*ctx_new)() noexcept nogil
    void (*ctx_free)(void* ctx) noexcept nogil
    # Wipes the key of the last packet from the context: for threads that go to sleep.
    void (*forget)(void* ctx) noexcept nogil
    # Writes n + 16 bytes; out may equal plain. 0 = ok.
    int (*seal)(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, uint64_t counter,
                const uint8_t* key32) noexcept nogil
    # n includes the tag; writes n - 16 bytes, all zero on failure; out may equal sealed. 0 = ok.
    int (*open)(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, uint64_t counter,
                const uint8_t* key32) noexcept nogil
    # The same with any nonce of 12 bytes and with additional data.
    int (*seal_ad)(void* ctx, uint8_t* out, const uint8_t* plain, size_t n, const uint8_t* nonce12,
                   const uint8_t* ad, size_t ad_n, const uint8_t* key32) noexcept nogil
    int (*open_ad)(void* ctx, uint8_t* out, const uint8_t* sealed, size_t n, const uint8_t* nonce12,
                   const uint8_t* ad, size_t ad_n, const uint8_t* key32) noexcept nogil

cdef class Cipher:
    cdef const aead_backend_t* backend
    cdef void* ctx

# The back end chosen at import by MESHD_AEAD or measurement, or later by aead.select(). Never NULL.
cdef const aead_backend_t* default_backend_c() noexcept nogil

# By name ("auto", "sodium", "openssl", "split", "boringssl"), NULL when not available.
cdef const aead_backend_t* find_backend_c(const char* name) noexcept nogil


# Zero bytes to append to n bytes of IP packet: to a multiple of 16, but never beyond the MTU.
cdef inline size_t transport_padding_c(size_t n, size_t mtu) noexcept nogil:
    cdef size_t last = n, padded
    if mtu == 0:
        return (16 - (n & 15)) & 15
    if last > mtu:
        last %= mtu
    padded = (last + 15) & ~<size_t>15
    if padded > mtu:
        padded = mtu
    return padded - last


cdef inline void transport_header_c(uint8_t* message, uint32_t receiver, uint64_t counter) noexcept nogil:
    store_le32(message, TRANSPORT_TYPE)
    store_le32(message + 4, receiver)
    store_le64(message + 8, counter)


# Builds a whole transport message in place: the n bytes (padding included) already stand at message + 16.
# The message is n + TRANSPORT_OVERHEAD_BYTES long. 0 = ok.
cdef inline int transport_seal_c(const aead_backend_t* backend, void* ctx, uint8_t* message, size_t n,
                                 uint32_t receiver, uint64_t counter, const uint8_t* key32) noexcept nogil:
    transport_header_c(message, receiver, counter)
    return backend.seal(ctx, message + TRANSPORT_HEADER_BYTES, message + TRANSPORT_HEADER_BYTES, n, counter, key32)


# 1 when the datagram has the shape of a transport message; sets its receiver index and counter.
cdef inline int transport_parse_c(const uint8_t* message, size_t n, uint32_t* receiver,
                                  uint64_t* counter) noexcept nogil:
    if n < TRANSPORT_OVERHEAD_BYTES or load_le32(message) != TRANSPORT_TYPE:
        return 0
    receiver[0] = load_le32(message + 4)
    counter[0] = load_le64(message + 8)
    return 1


# Opens a transport message in place: the plaintext of n - TRANSPORT_OVERHEAD_BYTES bytes stands at message + 16.
# 0 = ok.
cdef inline int transport_open_c(const aead_backend_t* backend, void* ctx, uint8_t* message, size_t n,
                                 uint64_t counter, const uint8_t* key32) noexcept nogil:
    return backend.open(ctx, message + TRANSPORT_HEADER_BYTES, message + TRANSPORT_HEADER_BYTES,
                        n - TRANSPORT_HEADER_BYTES, counter, key32)
