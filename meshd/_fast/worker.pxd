"""The loops of the packet threads. Each returns when the plane's stop descriptor becomes readable."""

from libc.stdint cimport uint32_t

from meshd._fast.inbound cimport inbound_t
from meshd._fast.outbound cimport outbound_t
from meshd._fast.udpio cimport udp_reader_t

# epoll: an empty one, the caller's to close.
cdef void sender_run_c(outbound_t* out, uint32_t queue, int epoll) noexcept nogil
cdef void receiver_run_c(inbound_t* inb, udp_reader_t* reader, int epoll) noexcept nogil
