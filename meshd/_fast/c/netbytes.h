/* Unaligned loads and stores in network order, and of 16-bit words as they lie in memory. */
#ifndef MESHD_NETBYTES_H
#define MESHD_NETBYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t get16be(const uint8_t *p) { return (uint16_t)((p[0] << 8) | p[1]); }
static inline uint32_t get32be(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline void put16be(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static inline void put32be(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}
static inline uint16_t get16raw(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline void put16raw(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline uint16_t raw16(uint16_t v) { return (uint16_t)((v >> 8) | (v << 8)); }
static inline uint32_t get32le(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline void put32le(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline uint64_t get64le(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void put64le(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the packet path is written for little-endian machines"
#endif

#endif
