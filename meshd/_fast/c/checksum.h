/* Ones-complement sum (RFC 1071) over native 16-bit words.
 *
 * The sum is order independent, so the bytes are added as they lie in memory and the folded result, stored
 * natively, is already in network order (RFC 1071 2 (B)). Two kernels: an add-with-carry chain that is best
 * for headers, and an AVX2 loop for payloads, taken when the processor has it. */
#ifndef MESHD_CHECKSUM_H
#define MESHD_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Below this many bytes the vector set-up costs more than it saves. */
#define CHECKSUM_VECTOR_MIN 128

static inline uint64_t checksum_add(uint64_t sum, uint64_t word)
{
    sum += word;
    return sum + (sum < word);
}

static inline uint64_t checksum_word(const uint8_t *data)
{
    uint64_t v;
    memcpy(&v, data, 8);
    return v;
}

/* The last 0..7 bytes, zero padded on the right as RFC 1071 wants. */
static inline uint64_t checksum_tail(const uint8_t *data, size_t n)
{
    uint64_t v = 0;
    if (n & 4) {
        uint32_t w;
        memcpy(&w, data, 4);
        v = w;
        data += 4;
    }
    if (n & 2) {
        uint16_t w;
        memcpy(&w, data, 2);
        v += w;
        data += 2;
    }
    if (n & 1) {
        uint16_t w = 0;
        memcpy(&w, data, 1);
        v += w;
    }
    return v;
}

static inline uint64_t checksum_scalar(const uint8_t *data, size_t n, uint64_t sum)
{
#if defined(__x86_64__)
    /* gcc turns a C carry chain into compare-and-add pairs; the carry flag halves that. */
    while (n >= 64) {
        __asm__("addq 0(%[p]), %[s]\n\t"
                "adcq 8(%[p]), %[s]\n\t"
                "adcq 16(%[p]), %[s]\n\t"
                "adcq 24(%[p]), %[s]\n\t"
                "adcq 32(%[p]), %[s]\n\t"
                "adcq 40(%[p]), %[s]\n\t"
                "adcq 48(%[p]), %[s]\n\t"
                "adcq 56(%[p]), %[s]\n\t"
                "adcq $0, %[s]"
                : [s] "+r"(sum)
                : [p] "r"(data), "m"(*(const uint8_t(*)[64])data)
                : "cc");
        data += 64;
        n -= 64;
    }
#else
    while (n >= 32) {
        sum = checksum_add(sum, checksum_word(data));
        sum = checksum_add(sum, checksum_word(data + 8));
        sum = checksum_add(sum, checksum_word(data + 16));
        sum = checksum_add(sum, checksum_word(data + 24));
        data += 32;
        n -= 32;
    }
#endif
    while (n >= 8) {
        sum = checksum_add(sum, checksum_word(data));
        data += 8;
        n -= 8;
    }
    return checksum_add(sum, checksum_tail(data, n));
}

#if defined(__x86_64__)
#include <immintrin.h>

/* 32-bit words widened into 64-bit lanes: no carry can be lost below 16 GiB of input. */
__attribute__((target("avx2"))) static inline uint64_t checksum_avx2(const uint8_t *data, size_t n, uint64_t sum)
{
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    while (n >= 64) {
        __m256i x = _mm256_loadu_si256((const __m256i *)data);
        __m256i y = _mm256_loadu_si256((const __m256i *)(data + 32));
        a = _mm256_add_epi64(a, _mm256_and_si256(x, low));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(x, 32));
        c = _mm256_add_epi64(c, _mm256_and_si256(y, low));
        d = _mm256_add_epi64(d, _mm256_srli_epi64(y, 32));
        data += 64;
        n -= 64;
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    uint64_t lanes = (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
    return checksum_scalar(data, n, checksum_add(sum, lanes));
}

static inline uint64_t checksum_sum(const uint8_t *data, size_t n, uint64_t sum)
{
    if (n >= CHECKSUM_VECTOR_MIN && __builtin_cpu_supports("avx2"))
        return checksum_avx2(data, n, sum);
    return checksum_scalar(data, n, sum);
}
#else
static inline uint64_t checksum_sum(const uint8_t *data, size_t n, uint64_t sum)
{
    return checksum_scalar(data, n, sum);
}
#endif

static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

#endif
