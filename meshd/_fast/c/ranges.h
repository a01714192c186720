/* Inclusive address ranges and sorted, disjoint lists of them.
 *
 * Addresses are left aligned (address.h); the last address of an IPv4 range is filled with ones below its 32 bits, so
 * that neighbours are neighbours in the 128-bit space and one code path serves both families. */
#ifndef MESHD_RANGES_H
#define MESHD_RANGES_H

#include "address.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    uint64_t first_hi, first_lo;
    uint64_t last_hi, last_lo;
} ip_range_t;

typedef unsigned __int128 ip_u128;

#define IP_U128(hi, lo) ((ip_u128)(hi) << 64 | (lo))
#define IP_FIRST(r) IP_U128((r)->first_hi, (r)->first_lo)
#define IP_LAST(r) IP_U128((r)->last_hi, (r)->last_lo)

static inline void range_set(ip_range_t *r, ip_u128 first, ip_u128 last)
{
    r->first_hi = (uint64_t)(first >> 64);
    r->first_lo = (uint64_t)first;
    r->last_hi = (uint64_t)(last >> 64);
    r->last_lo = (uint64_t)last;
}

static inline void range_of_prefix(ip_range_t *r, uint64_t hi, uint64_t lo, int bits)
{
    r->first_hi = hi & mask_hi(bits);
    r->first_lo = lo & mask_lo(bits);
    r->last_hi = hi | ~mask_hi(bits);
    r->last_lo = lo | ~mask_lo(bits);
}

static inline int range_contains(const ip_range_t *r, uint64_t hi, uint64_t lo)
{
    ip_u128 at = IP_U128(hi, lo);
    return IP_FIRST(r) <= at && at <= IP_LAST(r);
}

/* Takes the largest prefix that starts where the range starts and lies within it; 1 while something is left. */
static inline int range_take_prefix(ip_range_t *r, uint64_t *hi, uint64_t *lo, int *bits)
{
    ip_u128 first = IP_FIRST(r), last = IP_LAST(r), size = last - first + 1, end;
    int aligned, fitting, free_bits;
    *hi = r->first_hi;
    *lo = r->first_lo;
    aligned = r->first_lo ? __builtin_ctzll(r->first_lo) : r->first_hi ? 64 + __builtin_ctzll(r->first_hi) : 128;
    if (size == 0)
        fitting = 128; /* the whole space */
    else if (size >> 64)
        fitting = 127 - __builtin_clzll((uint64_t)(size >> 64));
    else
        fitting = 63 - __builtin_clzll((uint64_t)size);
    free_bits = aligned < fitting ? aligned : fitting;
    *bits = 128 - free_bits;
    end = free_bits == 128 ? ~(ip_u128)0 : first + (((ip_u128)1 << free_bits) - 1);
    if (end == last)
        return 0;
    range_set(r, end + 1, last);
    return 1;
}

static inline int range_compare(const void *a, const void *b)
{
    ip_u128 x = IP_FIRST((const ip_range_t *)a), y = IP_FIRST((const ip_range_t *)b);
    return (x > y) - (x < y);
}

/* Sorts and joins ranges that overlap or touch; the new count. */
static inline size_t ranges_normalise(ip_range_t *list, size_t n)
{
    size_t out = 0;
    if (n < 2)
        return n;
    qsort(list, n, sizeof *list, range_compare);
    for (size_t i = 1; i < n; i++) {
        ip_u128 last = IP_LAST(&list[out]);
        if (last == ~(ip_u128)0)
            break;
        if (IP_FIRST(&list[i]) <= last + 1) {
            if (IP_LAST(&list[i]) > last)
                range_set(&list[out], IP_FIRST(&list[out]), IP_LAST(&list[i]));
        } else {
            list[++out] = list[i];
        }
    }
    return out + 1;
}

/* Index of the range that contains the address, -1 for none. */
static inline ptrdiff_t ranges_find(const ip_range_t *list, size_t n, uint64_t hi, uint64_t lo)
{
    ip_u128 at = IP_U128(hi, lo);
    size_t low = 0;
    while (n) {
        size_t half = n >> 1;
        if (IP_LAST(&list[low + half]) < at) {
            low += half + 1;
            n -= half + 1;
        } else {
            if (IP_FIRST(&list[low + half]) <= at)
                return (ptrdiff_t)(low + half);
            n = half;
        }
    }
    return -1;
}

/* a without b, both normalised; out holds at least a_n + b_n ranges. */
static inline size_t ranges_subtract(const ip_range_t *a, size_t a_n, const ip_range_t *b, size_t b_n, ip_range_t *out)
{
    size_t n = 0, j = 0;
    for (size_t i = 0; i < a_n; i++) {
        ip_u128 first = IP_FIRST(&a[i]), last = IP_LAST(&a[i]);
        int used_up = 0;
        while (j < b_n && IP_LAST(&b[j]) < first)
            j++;
        for (size_t k = j; k < b_n && IP_FIRST(&b[k]) <= last; k++) {
            if (IP_FIRST(&b[k]) > first)
                range_set(&out[n++], first, IP_FIRST(&b[k]) - 1);
            if (IP_LAST(&b[k]) >= last) {
                used_up = 1;
                break;
            }
            first = IP_LAST(&b[k]) + 1;
        }
        if (!used_up)
            range_set(&out[n++], first, last);
    }
    return n;
}

/* What a and b, both normalised, have in common; out holds at least a_n + b_n ranges. */
static inline size_t ranges_intersect(const ip_range_t *a, size_t a_n, const ip_range_t *b, size_t b_n,
                                      ip_range_t *out)
{
    size_t n = 0, i = 0, j = 0;
    while (i < a_n && j < b_n) {
        ip_u128 first = IP_FIRST(&a[i]) > IP_FIRST(&b[j]) ? IP_FIRST(&a[i]) : IP_FIRST(&b[j]);
        ip_u128 last = IP_LAST(&a[i]) < IP_LAST(&b[j]) ? IP_LAST(&a[i]) : IP_LAST(&b[j]);
        if (first <= last)
            range_set(&out[n++], first, last);
        if (IP_LAST(&a[i]) < IP_LAST(&b[j]))
            i++;
        else
            j++;
    }
    return n;
}

#endif
