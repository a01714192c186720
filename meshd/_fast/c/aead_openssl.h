/* ChaCha20-Poly1305 by OpenSSL's libcrypto, opened at run time.
 *
 * No OpenSSL headers are needed to build: the few EVP entry points are looked up by name. Their prototypes are part
 * of the stable libcrypto ABI (EVP_EncryptInit(3)). */
#ifndef MESHD_AEAD_OPENSSL_H
#define MESHD_AEAD_OPENSSL_H

#include <dlfcn.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "stackwipe.h"

#define OPENSSL_GET_TAG 0x10 /* EVP_CTRL_AEAD_GET_TAG */
#define OPENSSL_SET_TAG 0x11 /* EVP_CTRL_AEAD_SET_TAG */
#define OPENSSL_TAG_BYTES 16

static struct {
    void *library;
    const void *cipher;
    void *(*ctx_new)(void);
    void (*ctx_free)(void *);
    int (*init)(void *, const void *, void *, const unsigned char *, const unsigned char *, int);
    int (*update)(void *, unsigned char *, int *, const unsigned char *, int);
    int (*final)(void *, unsigned char *, int *);
    int (*ctrl)(void *, int, int, void *);
} openssl_evp;

/* One EVP context per direction: switching a context between sealing and opening is not promised to be cheap. */
typedef struct {
    void *seal;
    void *open;
} openssl_ctx_t;

static inline int openssl_bind(void *library)
{
    const void *(*cipher)(void) = (const void *(*)(void))dlsym(library, "EVP_chacha20_poly1305");
    const void *(*fetch)(void *, const char *, const char *) =
        (const void *(*)(void *, const char *, const char *))dlsym(library, "EVP_CIPHER_fetch");
    openssl_evp.ctx_new = (void *(*)(void))dlsym(library, "EVP_CIPHER_CTX_new");
    openssl_evp.ctx_free = (void (*)(void *))dlsym(library, "EVP_CIPHER_CTX_free");
    openssl_evp.init = (int (*)(void *, const void *, void *, const unsigned char *, const unsigned char *, int))dlsym(
        library, "EVP_CipherInit_ex");
    openssl_evp.update =
        (int (*)(void *, unsigned char *, int *, const unsigned char *, int))dlsym(library, "EVP_CipherUpdate");
    openssl_evp.final = (int (*)(void *, unsigned char *, int *))dlsym(library, "EVP_CipherFinal_ex");
    openssl_evp.ctrl = (int (*)(void *, int, int, void *))dlsym(library, "EVP_CIPHER_CTX_ctrl");
    if (!openssl_evp.ctx_new || !openssl_evp.ctx_free || !openssl_evp.init || !openssl_evp.update ||
        !openssl_evp.final || !openssl_evp.ctrl)
        return 0;
    /* An explicitly fetched cipher spares a provider look-up per context (OpenSSL 3). */
    openssl_evp.cipher = fetch ? fetch(NULL, "ChaCha20-Poly1305", NULL) : cipher ? cipher() : NULL;
    return openssl_evp.cipher != NULL;
}

/* 1 when a usable libcrypto was found. Not thread safe: call once, at import. */
static inline int openssl_load(void)
{
    static const char *const names[] = {"libcrypto.so.3", "libcrypto.so", "libcrypto.so.1.1"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !openssl_evp.library; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            continue;
        if (openssl_bind(library))
            openssl_evp.library = library;
        else
            dlclose(library);
    }
    return openssl_evp.library != NULL;
}

static inline void openssl_ctx_free(void *context)
{
    openssl_ctx_t *ctx = context;
    if (!ctx)
        return;
    openssl_evp.ctx_free(ctx->seal); /* accepts NULL; wipes the key */
    openssl_evp.ctx_free(ctx->open);
    free(ctx);
}

static inline void *openssl_ctx_new(void)
{
    openssl_ctx_t *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return NULL;
    ctx->seal = openssl_evp.ctx_new();
    ctx->open = openssl_evp.ctx_new();
    if (!ctx->seal || !ctx->open || openssl_evp.init(ctx->seal, openssl_evp.cipher, NULL, NULL, NULL, 1) != 1 ||
        openssl_evp.init(ctx->open, openssl_evp.cipher, NULL, NULL, NULL, 0) != 1) {
        openssl_ctx_free(ctx);
        return NULL;
    }
    return ctx;
}

/* Put a key of zeros in place of the last packet's. */
static inline void openssl_forget(void *context)
{
    static const uint8_t zeros[32];
    openssl_ctx_t *ctx = context;
    openssl_evp.init(ctx->seal, NULL, NULL, zeros, zeros, 1);
    openssl_evp.init(ctx->open, NULL, NULL, zeros, zeros, 0);
    stack_wipe();
}

static inline void openssl_nonce(uint8_t nonce[12], uint64_t counter)
{
    memset(nonce, 0, 4);
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

static inline int openssl_seal_ad(void *context, uint8_t *out, const uint8_t *plain, size_t n, const uint8_t *nonce,
                                  const uint8_t *ad, size_t ad_n, const uint8_t *key)
{
    void *evp = ((openssl_ctx_t *)context)->seal;
    int written = 0;
    if (n > INT_MAX || ad_n > INT_MAX)
        return -1;
    if (openssl_evp.init(evp, NULL, NULL, key, nonce, 1) != 1)
        return -1;
    if (ad_n && openssl_evp.update(evp, NULL, &written, ad, (int)ad_n) != 1)
        return -1;
    if (n && openssl_evp.update(evp, out, &written, plain, (int)n) != 1)
        return -1;
    if (openssl_evp.final(evp, out + n, &written) != 1)
        return -1;
    return openssl_evp.ctrl(evp, OPENSSL_GET_TAG, OPENSSL_TAG_BYTES, out + n) == 1 ? 0 : -1;
}

static inline int openssl_open_ad(void *context, uint8_t *out, const uint8_t *sealed, size_t n, const uint8_t *nonce,
                                  const uint8_t *ad, size_t ad_n, const uint8_t *key)
{
    void *evp = ((openssl_ctx_t *)context)->open;
    uint8_t tag[OPENSSL_TAG_BYTES];
    uint8_t unused[OPENSSL_TAG_BYTES];
    int written = 0;
    size_t body;
    if (n < OPENSSL_TAG_BYTES || n > INT_MAX || ad_n > INT_MAX)
        return -1;
    body = n - OPENSSL_TAG_BYTES;
    memcpy(tag, sealed + body, sizeof tag);
    if (openssl_evp.init(evp, NULL, NULL, key, nonce, 0) == 1 &&
        openssl_evp.ctrl(evp, OPENSSL_SET_TAG, OPENSSL_TAG_BYTES, tag) == 1 &&
        (!ad_n || openssl_evp.update(evp, NULL, &written, ad, (int)ad_n) == 1) &&
        (!body || openssl_evp.update(evp, out, &written, sealed, (int)body) == 1) &&
        openssl_evp.final(evp, unused, &written) == 1)
        return 0;
    /* libcrypto decrypts before it verifies: never leave unauthenticated text behind. */
    memset(out, 0, body);
    return -1;
}

static inline int openssl_seal(void *context, uint8_t *out, const uint8_t *plain, size_t n, uint64_t counter,
                               const uint8_t *key)
{
    uint8_t nonce[12];
    openssl_nonce(nonce, counter);
    return openssl_seal_ad(context, out, plain, n, nonce, NULL, 0, key);
}

static inline int openssl_open(void *context, uint8_t *out, const uint8_t *sealed, size_t n, uint64_t counter,
                               const uint8_t *key)
{
    uint8_t nonce[12];
    openssl_nonce(nonce, counter);
    return openssl_open_ad(context, out, sealed, n, nonce, NULL, 0, key);
}

#endif
