"""From plain packets to datagrams: route, filter, seal, send. One context per thread."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshd._fast.aead cimport aead_backend_t
from meshd._fast.packet cimport packet_info_t
from meshd._fast.peer cimport path_t, peer_t
from meshd._fast.planestate cimport plane_t
from meshd._fast.segment cimport vnet_header_t
from meshd._fast.udpio cimport udp_address_t

cdef enum:
    OUT_RUNS = 64
    OUT_EAGER = 16384           # bytes of complete runs that are sent before another run is begun
    OUT_ARENA = 163840          # OUT_EAGER, a run of 65507 bytes, and one message of 64 KiB

cdef enum out_result_t:
    OUT_SENT = 0
    OUT_NO_SESSION = 1
    OUT_DROPPED = 2

cdef struct run_t:              # datagrams in a row in the arena, all for one peer
    uint32_t offset
    uint32_t bytes
    uint32_t segment            # size of all but the last
    uint32_t count
    int32_t peer
    uint32_t closed             # nothing may follow
    peer_t* slot
    path_t path

cdef struct outbound_t:
    plane_t* plane
    uint32_t worker
    int patient                 # wait while the socket is full
    const aead_backend_t* aead
    void* aead_context
    uint64_t now
    uint8_t* input              # TUN_READ_BYTES, with room for longer headers before
    uint8_t* arena
    uint8_t* scratch            # VIA_HEADROOM and a piece of a super packet
    uint8_t* part               # a fragment
    uint64_t told_since         # start of the second in which `told` senders learned what fits
    uint32_t told
    uint32_t used
    uint32_t run_count
    run_t runs[64]

cdef int outbound_open_c(outbound_t* out, plane_t* plane, uint32_t worker, int patient) noexcept nogil
cdef void outbound_close_c(outbound_t* out) noexcept nogil
# A packet of the TUN, behind its virtio-net header. Sent by outbound_flush_c at the latest.
cdef void outbound_packet_c(outbound_t* out, const vnet_header_t* vnet, const uint8_t* packet,
                            uint32_t n) noexcept nogil
# The same to a given peer, unfiltered; n = 0 is a keepalive.
cdef int outbound_to_peer_c(outbound_t* out, int32_t index, const vnet_header_t* vnet, const uint8_t* packet,
                            uint32_t n) noexcept nogil
cdef void outbound_flush_c(outbound_t* out) noexcept nogil
# For a thread that has nothing to do: no key stays behind in its context.
cdef inline void outbound_rest_c(outbound_t* out) noexcept nogil:
    out.aead.forget(out.aead_context)
