/* Hostile inputs for C functions, a million a second: known inputs changed at random, each in memory of its own that
 * ends where the input ends. Under AddressSanitizer the heap does that; without it a page that cannot be read does. */
#ifndef MESHD_FUZZLOOP_H
#define MESHD_FUZZLOOP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FUZZ_LIMIT 4096
#define FUZZ_PAGE 4096

#if defined(__SANITIZE_ADDRESS__)
#define FUZZ_SANITIZED 1
#else
#define FUZZ_SANITIZED 0
#endif

typedef struct {
    uint64_t state;
    const uint8_t **seeds;
    size_t *sizes;
    size_t seeds_n;
    uint8_t *arena; /* readable, then a page that is not */
    uint8_t scratch[FUZZ_LIMIT];
    size_t scratch_n;
} fuzz_t;

static inline uint64_t fuzz_bits(fuzz_t *f)
{
    uint64_t x = f->state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    f->state = x;
    return x * 0x2545F4914F6CDD1Dull >> 8;
}

static inline size_t fuzz_below(fuzz_t *f, size_t n) { return n ? fuzz_bits(f) % n : 0; }

static inline int fuzz_open(fuzz_t *f, uint64_t seed)
{
    f->state = (seed + 1) * 0x9E3779B97F4A7C15ull;
    if (f->state == 0)
        f->state = 1;
    f->arena = mmap(NULL, FUZZ_LIMIT + FUZZ_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->arena == MAP_FAILED)
        return -1;
    return mprotect(f->arena + FUZZ_LIMIT, FUZZ_PAGE, PROT_NONE);
}

static inline void fuzz_close(fuzz_t *f)
{
    munmap(f->arena, FUZZ_LIMIT + FUZZ_PAGE);
}

static const uint16_t fuzz_edges[] = {0,  1,  2,  3,  4,   7,   8,   9,    15,   16,   19,    20,    21,    28,   39,   40,
                                      41, 48, 60, 64, 127, 128, 255, 256,  575,  576,  1279,  1280,  1281,  1500, 2047, 2048,
                                      0x1FFF, 0x2000, 0x3FFF, 0x4000, 32767, 32768, 65495, 65507, 65515, 65534, 65535};
#define FUZZ_EDGES (sizeof fuzz_edges / sizeof *fuzz_edges)

/* Makes the next input in f->scratch. */
static inline void fuzz_next(fuzz_t *f)
{
    size_t from = fuzz_below(f, f->seeds_n), n = f->sizes[from], rounds, at, k;
    uint8_t *data = f->scratch;
    uint64_t r = fuzz_bits(f);
    memcpy(data, f->seeds[from], n);
    for (rounds = (r & 7) < 5 ? (r & 7) : 1 + (r >> 8) % 8; rounds; rounds--) {
        r = fuzz_bits(f);
        at = n ? (r >> 16) % n : 0;
        if ((r & 48) == 0 && n) /* headers are what decides */
            at %= n < 64 ? n : 64;
        switch (r & 15) {
        case 0: case 1: case 2: case 3:
            if (n)
                data[at] = (uint8_t)(r >> 48);
            break;
        case 4: case 5:
            if (n)
                data[at] ^= (uint8_t)(1u << ((r >> 48) & 7));
            break;
        case 6: case 7: case 8:
            if (at + 2 <= n) {
                uint16_t edge = fuzz_edges[(r >> 40) % FUZZ_EDGES];
                data[at] = (uint8_t)(r & 64 ? edge >> 8 : edge);
                data[at + 1] = (uint8_t)(r & 64 ? edge : edge >> 8);
            }
            break;
        case 9: case 10:
            n = n ? (r >> 24) % (n + 1) : 0;
            break;
        case 11: /* more at the end */
            k = (r >> 40) % 80;
            for (; k && n < FUZZ_LIMIT; k--)
                data[n++] = (uint8_t)fuzz_bits(f);
            break;
        case 12: /* a part is missing */
            k = 1 + (r >> 40) % 16;
            if (at + k <= n) {
                memmove(data + at, data + at + k, n - at - k);
                n -= k;
            }
            break;
        case 13: /* a part stands twice */
            k = 1 + (r >> 40) % 32;
            if (at + k <= n && n + k <= FUZZ_LIMIT) {
                memmove(data + at + k, data + at, n - at);
                n += k;
            }
            break;
        case 14: { /* the end of another */
            size_t other = fuzz_below(f, f->seeds_n), size = f->sizes[other], cut = size ? (r >> 24) % size : 0;
            if (at + size - cut <= FUZZ_LIMIT) {
                memcpy(data + at, f->seeds[other] + cut, size - cut);
                n = at + size - cut;
            }
            break;
        }
        default: /* the length by the header is the length there is */
            if (n >= 6 && data[0] >> 4 == 4) {
                data[2] = (uint8_t)(n >> 8);
                data[3] = (uint8_t)n;
            } else if (n >= 40 && data[0] >> 4 == 6) {
                data[4] = (uint8_t)((n - 40) >> 8);
                data[5] = (uint8_t)(n - 40);
            }
        }
    }
    f->scratch_n = n;
}

/* A copy of n bytes that may not be read beyond; give it back with fuzz_free. */
static inline uint8_t *fuzz_copy(fuzz_t *f, const uint8_t *data, size_t n)
{
    uint8_t *copy = FUZZ_SANITIZED ? malloc(n) : f->arena + FUZZ_LIMIT - n;
    if (n)
        memcpy(copy, data, n);
    return copy;
}

static inline void fuzz_free(uint8_t *copy)
{
    if (FUZZ_SANITIZED)
        free(copy);
}

#endif
