"""Generic receive offload for TUN writes: packets of one flow leave as one super packet."""

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshd._fast.segment cimport vnet_header_t

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef enum:
    GRO_ITEMS = 128         # packets or super packets per batch
    GRO_PIECES = 64         # UDP_MAX_SEGMENTS of older kernels
    GRO_BUCKETS = 256

cdef enum:
    GRO_TCP = 1
    GRO_UDP = 2

cdef struct gro_item_t:
    uint8_t head[136]       # virtio-net header, then a private copy of the IP and transport headers
    const uint8_t* packet   # first packet, whole
    uint32_t bytes          # of the first packet
    uint32_t sequence       # of the first payload byte
    uint32_t payload        # bytes of all pieces
    uint16_t ip             # IP header bytes
    uint16_t header         # IP and transport header bytes
    uint16_t gso
    uint16_t pieces
    uint8_t kind            # 0 = left alone, GRO_TCP, GRO_UDP
    uint8_t push
    uint8_t checked         # checksum of the first packet was found right
    uint8_t broken          # or wrong, or the datagram has none: nothing joins it
    uint8_t version
    int16_t older           # next item of the bucket
    uint16_t bucket
    iovec iov[1 + GRO_PIECES]

cdef struct gro_t:
    gro_item_t* items
    uint32_t count
    uint32_t features       # GRO_TCP | GRO_UDP
    uint32_t datagrams      # join items from here on only: what lies here may be of their flow
    int16_t newest[GRO_BUCKETS]

cdef gro_t* gro_new_c() noexcept nogil
cdef void gro_free_c(gro_t* gro) noexcept nogil
cdef void gro_reset_c(gro_t* gro) noexcept nogil
cdef int gro_add_c(gro_t* gro, const uint8_t* packet, uint32_t n) noexcept nogil
cdef int gro_finish_c(gro_item_t* item) noexcept nogil
cdef const uint8_t* gro_piece_c(const gro_item_t* item, uint32_t i, uint32_t* n) noexcept nogil
