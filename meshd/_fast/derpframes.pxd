"""Frames of a relay connection (DERP): what a read brought, and bundles of datagrams in one frame."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    DERP_HEADER_BYTES = 5           # type, length u32 big-endian
    DERP_KEY_BYTES = 32
    DERP_SEND_PACKET = 4
    DERP_RECV_PACKET = 5
    DERP_MAX_FRAME = 1048576        # a client refuses larger ones
    DERP_MAX_PACKET = 65536

# A bundle is a relayed packet that holds several WireGuard messages of one size (the last may be shorter): type,
# zero, their size u16 big-endian, then the messages. Only peers that asked for bundles get them.
cdef enum:
    DERP_BUNDLE_TYPE = 0x42
    DERP_BUNDLE_HEADER_BYTES = 4
    DERP_BUNDLE_BYTES = 16384            # of messages in a frame; its frame fills about one TLS record

cdef struct relayed_run_t:
    uint32_t offset                 # in the data that was read
    uint32_t bytes
    uint32_t segment                # datagrams of so many bytes, the last may be shorter

cdef inline uint32_t bundle_segment_c(const uint8_t* packet, uint32_t n) noexcept nogil:
    """Size of the messages in a bundle; 0 when it is none."""
    if n <= DERP_BUNDLE_HEADER_BYTES or packet[0] != DERP_BUNDLE_TYPE or packet[1]:
        return 0
    return <uint32_t> packet[2] << 8 | packet[3]


cdef class RelayedPackets:
    cdef bytes data
    cdef relayed_run_t* runs
    cdef uint32_t count
    cdef uint32_t room
    cdef int _add(self, uint32_t offset, uint32_t n, uint32_t segment) except -1
