/* 16-bit fields of packets, in network order and as they lie in memory, where checksums want them. */
#ifndef MESHD_NETBYTES_H
#define MESHD_NETBYTES_H

#include "address.h"

static inline void put16be(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline uint16_t get16raw(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void put16raw(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

/* The word that a number becomes when it is written in network order. */
static inline uint16_t raw16(uint16_t v)
{
    uint8_t bytes[2];
    put16be(bytes, v);
    return get16raw(bytes);
}

#endif
