"""Cutting a virtio-net super packet into packets, each written where it will be sealed."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    VNET_BYTES = 10
    VNET_NEEDS_CSUM = 1
    GSO_NONE = 0
    GSO_TCP4 = 1
    GSO_TCP6 = 4
    GSO_UDP = 5
    GSO_ECN = 0x80
    MAX_PIECES = 2048       # bounds the work one super packet can ask for

cdef enum:
    SEGMENT_OK = 0
    SEGMENT_BAD = -1

cdef struct vnet_header_t:      # virtio_net_hdr, host byte order, 10 bytes
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset

cdef struct segment_plan_t:
    const uint8_t* packet
    uint32_t bytes              # of the super packet
    uint32_t count              # packets it becomes
    uint32_t piece              # payload bytes of all but the last
    uint32_t header             # IP and transport header bytes
    uint32_t ip                 # IP header bytes
    uint8_t kind                # GSO_*
    uint8_t version
    uint8_t flags               # TCP flags of the super packet
    uint8_t checksum            # kind none: complete the checksum
    uint16_t csum_at            # kind none: where it stands
    uint16_t ident
    uint32_t sequence
    uint64_t ip_sum
    uint64_t transport_sum

cdef int plan_c(segment_plan_t* plan, const vnet_header_t* vnet, const uint8_t* packet, size_t n) noexcept nogil
cdef uint32_t piece_bytes_c(const segment_plan_t* plan, uint32_t i) noexcept nogil
cdef uint32_t emit_c(const segment_plan_t* plan, uint32_t i, uint8_t* out) noexcept nogil
cdef uint32_t padded_c(uint32_t n, uint32_t mtu) noexcept nogil
