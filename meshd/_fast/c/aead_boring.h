/* ChaCha20-Poly1305 by a libcrypto of the BoringSSL family (BoringSSL, AWS-LC), opened at run time.
 *
 * Both have the EVP_AEAD interface of openssl/aead.h, and fused code for both halves of the cipher. Neither promises an
 * ABI, so only a library that was named (MESHD_AEAD_LIBRARY, at run or build time) is opened, and it is tried out
 * before it is believed. */
#ifndef MESHD_AEAD_BORING_H
#define MESHD_AEAD_BORING_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "stackwipe.h"

#ifndef MESHD_AEAD_LIBRARY
#define MESHD_AEAD_LIBRARY ""
#endif

#define BORING_TAG_BYTES 16
#define BORING_KEY_BYTES 32
/* EVP_AEAD_CTX has some 600 bytes; what stands behind that is watched while the library is tried out. */
#define BORING_STATE_BYTES 2048
#define BORING_STATE_WATCHED 1024

/* Its own symbols first: another libcrypto may be in the process. The sanitizers cannot work with that. */
#if defined(RTLD_DEEPBIND) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BORING_DLOPEN_FLAGS (RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND)
#else
#define BORING_DLOPEN_FLAGS (RTLD_NOW | RTLD_LOCAL)
#endif

static struct {
    void *library;
    const void *(*chacha20_poly1305)(void);
    int (*init)(void *, const void *, const uint8_t *, size_t, size_t, void *);
    void (*cleanup)(void *);
    int (*seal)(const void *, uint8_t *, size_t *, size_t, const uint8_t *, size_t, const uint8_t *, size_t,
                const uint8_t *, size_t);
    int (*open)(const void *, uint8_t *, size_t *, size_t, const uint8_t *, size_t, const uint8_t *, size_t,
                const uint8_t *, size_t);
} boring_evp;

typedef struct {
    uint8_t state[BORING_STATE_BYTES] __attribute__((aligned(64))); /* EVP_AEAD_CTX */
    uint8_t key[BORING_KEY_BYTES];                                  /* of state, when ready */
    int ready;
} boring_ctx_t;

static inline void boring_clear(boring_ctx_t *ctx)
{
    if (!ctx->ready)
        return;
    boring_evp.cleanup(ctx->state);
    explicit_bzero(ctx->state, BORING_STATE_WATCHED);
    explicit_bzero(ctx->key, sizeof ctx->key);
    ctx->ready = 0;
}

static inline void boring_forget(void *context)
{
    boring_ctx_t *ctx = context;
    if (ctx && ctx->ready) {
        boring_clear(ctx);
        stack_wipe();
    }
}

static inline void boring_ctx_free(void *context)
{
    boring_forget(context);
    free(context);
}

static inline void *boring_ctx_new(void)
{
    void *memory;
    if (posix_memalign(&memory, 64, sizeof(boring_ctx_t)) != 0)
        return NULL;
    memset(memory, 0, sizeof(boring_ctx_t));
    return memory;
}

static inline int boring_same_key(const uint8_t *a, const uint8_t *b)
{
    uint64_t differs = 0;
    for (int i = 0; i < BORING_KEY_BYTES; i += 8)
        differs |= load_u64(a + i) ^ load_u64(b + i);
    return differs == 0;
}

/* 1 when the state has this key. Making one is a copy of the key, but not as cheap as comparing. */
static inline int boring_use(boring_ctx_t *ctx, const uint8_t *key)
{
    if (ctx->ready && boring_same_key(ctx->key, key))
        return 1;
    boring_clear(ctx);
    if (boring_evp.init(ctx->state, boring_evp.chacha20_poly1305(), key, BORING_KEY_BYTES, BORING_TAG_BYTES, NULL) != 1)
        return 0;
    memcpy(ctx->key, key, BORING_KEY_BYTES);
    ctx->ready = 1;
    return 1;
}

static inline int boring_seal_ad(void *context, uint8_t *out, const uint8_t *plain, size_t n, const uint8_t *nonce,
                                 const uint8_t *ad, size_t ad_n, const uint8_t *key)
{
    boring_ctx_t *ctx = context;
    size_t written;
    return boring_use(ctx, key) && boring_evp.seal(ctx->state, out, &written, n + BORING_TAG_BYTES, nonce, 12, plain, n,
                                                   ad, ad_n) == 1
               ? 0
               : -1;
}

static inline int boring_open_ad(void *context, uint8_t *out, const uint8_t *sealed, size_t n, const uint8_t *nonce,
                                 const uint8_t *ad, size_t ad_n, const uint8_t *key)
{
    boring_ctx_t *ctx = context;
    size_t written;
    if (n < BORING_TAG_BYTES)
        return -1;
    if (boring_use(ctx, key) &&
        boring_evp.open(ctx->state, out, &written, n - BORING_TAG_BYTES, nonce, 12, sealed, n, ad, ad_n) == 1)
        return 0;
    memset(out, 0, n - BORING_TAG_BYTES);
    return -1;
}

static inline int boring_seal(void *context, uint8_t *out, const uint8_t *plain, size_t n, uint64_t counter,
                              const uint8_t *key)
{
    uint8_t nonce[12] = {0};
    store_le64(nonce + 4, counter);
    return boring_seal_ad(context, out, plain, n, nonce, NULL, 0, key);
}

static inline int boring_open(void *context, uint8_t *out, const uint8_t *sealed, size_t n, uint64_t counter,
                              const uint8_t *key)
{
    uint8_t nonce[12] = {0};
    store_le64(nonce + 4, counter);
    return boring_open_ad(context, out, sealed, n, nonce, NULL, 0, key);
}

static inline int boring_bind(void *library)
{
    boring_evp.chacha20_poly1305 = (const void *(*)(void))dlsym(library, "EVP_aead_chacha20_poly1305");
    boring_evp.init = (int (*)(void *, const void *, const uint8_t *, size_t, size_t, void *))dlsym(
        library, "EVP_AEAD_CTX_init");
    boring_evp.cleanup = (void (*)(void *))dlsym(library, "EVP_AEAD_CTX_cleanup");
    boring_evp.seal = (int (*)(const void *, uint8_t *, size_t *, size_t, const uint8_t *, size_t, const uint8_t *,
                               size_t, const uint8_t *, size_t))dlsym(library, "EVP_AEAD_CTX_seal");
    boring_evp.open = (int (*)(const void *, uint8_t *, size_t *, size_t, const uint8_t *, size_t, const uint8_t *,
                               size_t, const uint8_t *, size_t))dlsym(library, "EVP_AEAD_CTX_open");
    return boring_evp.chacha20_poly1305 && boring_evp.init && boring_evp.cleanup && boring_evp.seal && boring_evp.open;
}

/* 1 when it seals zeros as it should (RFC 8439, key and nonce zero), opens that again, refuses what was changed, and
 * writes only where it may. */
static inline int boring_proves_right(void)
{
    static const uint8_t wanted[16] = {0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a,
                                       0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08, 0x0d};
    uint8_t key[BORING_KEY_BYTES] = {0}, text[64 + BORING_TAG_BYTES] = {0}, changed[64 + BORING_TAG_BYTES], sum = 0;
    boring_ctx_t *ctx = boring_ctx_new();
    int right;
    if (!ctx)
        return 0;
    memset(ctx->state + BORING_STATE_WATCHED, 0xa5, BORING_STATE_BYTES - BORING_STATE_WATCHED);
    right = boring_seal(ctx, text, text, 64, 0, key) == 0 && memcmp(text, wanted, sizeof wanted) == 0;
    memcpy(changed, text, sizeof changed);
    changed[5] ^= 1;
    right = right && boring_open(ctx, changed, changed, sizeof changed, 0, key) != 0 &&
            boring_open(ctx, text, text, sizeof text, 0, key) == 0;
    for (size_t i = 0; i < 64; i++)
        sum |= text[i] | changed[i];
    for (size_t i = BORING_STATE_WATCHED; i < BORING_STATE_BYTES; i++)
        sum |= ctx->state[i] ^ 0xa5;
    boring_ctx_free(ctx);
    return right && sum == 0;
}

/* NULL when the library is in use, else why it is not. Not thread safe, and once only. */
static inline const char *boring_load(const char *path)
{
    const char *reason;
    void *library;
    if (boring_evp.library)
        return "another library is in use already";
    library = dlopen(path, BORING_DLOPEN_FLAGS);
    if (!library)
        return "cannot be opened as a shared library";
    if (!boring_bind(library))
        reason = "has no EVP_AEAD interface, so it is no libcrypto of BoringSSL or AWS-LC";
    else if (!boring_proves_right())
        reason = "does not compute ChaCha20-Poly1305 as this program calls it";
    else {
        boring_evp.library = library;
        return NULL;
    }
    dlclose(library);
    return reason;
}

#endif
