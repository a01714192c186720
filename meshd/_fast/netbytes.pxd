"""Unaligned integers in packets (c/netbytes.h)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "netbytes.h" nogil:
    uint16_t get16be(const uint8_t* p) noexcept
    uint32_t get32be(const uint8_t* p) noexcept
    void put16be(uint8_t* p, uint16_t v) noexcept
    void put32be(uint8_t* p, uint32_t v) noexcept
    uint16_t get16raw(const uint8_t* p) noexcept
    void put16raw(uint8_t* p, uint16_t v) noexcept
    uint16_t raw16(uint16_t v) noexcept
    uint32_t get32le(const uint8_t* p) noexcept
    void put32le(uint8_t* p, uint32_t v) noexcept
    uint64_t get64le(const uint8_t* p) noexcept
    void put64le(uint8_t* p, uint64_t v) noexcept
