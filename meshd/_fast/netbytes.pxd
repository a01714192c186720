"""Unaligned integers in packets (c/address.h, c/netbytes.h)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "netbytes.h" nogil:
    uint16_t get16be "load_be16"(const uint8_t* p) noexcept
    uint32_t get32be "load_be32"(const uint8_t* p) noexcept
    uint32_t get32le "load_le32"(const uint8_t* p) noexcept
    void put32be "store_be32"(uint8_t* p, uint32_t v) noexcept
    void put16be(uint8_t* p, uint16_t v) noexcept
    uint16_t get16raw(const uint8_t* p) noexcept
    void put16raw(uint8_t* p, uint16_t v) noexcept
    uint16_t raw16(uint16_t v) noexcept
