"""From datagrams to plain packets: open, check, filter, merge, write. One context per thread."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshd._fast.aead cimport aead_backend_t
from meshd._fast.coalesce cimport gro_t
from meshd._fast.peer cimport peer_t
from meshd._fast.planestate cimport plane_t
from meshd._fast.session cimport session_t
from meshd._fast.sourcelimit cimport source_limit_t
from meshd._fast.udpio cimport udp_address_t

cdef struct inbound_t:
    plane_t* plane
    uint32_t worker
    const aead_backend_t* aead
    void* aead_context
    gro_t* gro
    source_limit_t* sources
    uint64_t now
    uint32_t index              # of `session`, the one the last message belonged to
    session_t* session
    int32_t peer                # whose traffic is being summed up; -1 = nobody's
    peer_t* slot
    uint64_t packets
    uint64_t bytes
    uint32_t data
    uint32_t way                # IN_IPV4_PACKETS, IN_IPV6_PACKETS, IN_DERP_PACKETS: how it comes
    uint16_t ident              # of the next packet that is translated to IPv4
    const udp_address_t* source     # of the datagrams under way; NULL = they came through a relay

cdef int inbound_open_c(inbound_t* inb, plane_t* plane, uint32_t worker) noexcept nogil
cdef void inbound_close_c(inbound_t* inb) noexcept nogil
# A batch: begin, any number of messages, flush. Buffers given in between must stay until the flush.
cdef void inbound_begin_c(inbound_t* inb) noexcept nogil
# One datagram; plain has room for n bytes, may be message + 16, and keeps the packet.
cdef int inbound_transport_c(inbound_t* inb, const uint8_t* message, uint32_t n, uint8_t* plain) noexcept nogil
cdef void inbound_datagrams_c(inbound_t* inb, uint8_t* data, uint32_t n, uint32_t segment,
                              const udp_address_t* source) noexcept nogil
# Datagrams of segment bytes that came through a relay; plain has room for n bytes and keeps the packets.
cdef void inbound_relayed_c(inbound_t* inb, const uint8_t* data, uint32_t n, uint32_t segment,
                            uint8_t* plain) noexcept nogil
cdef int inbound_deliver_c(inbound_t* inb, const uint8_t* packet, uint32_t n) noexcept nogil
cdef void inbound_flush_c(inbound_t* inb) noexcept nogil
# For a thread that has nothing to do: no key stays behind in its context.
cdef inline void inbound_rest_c(inbound_t* inb) noexcept nogil:
    inb.aead.forget(inb.aead_context)
