"""Who reads a TUN queue: its sender thread while there is much to do, at other times the receiver of its number.

One thread for both directions needs no other to be woken for the answer that a host gives while the packet is being
written to it. Two are faster as soon as one cannot keep up. The sender lends its queue, with its context, to the
receiver when there was little to do for a while; the receiver returns it when it has much to do. Contexts belong to the
plane, so that either thread may end first.
"""

from libc.stdint cimport uint32_t, uint64_t

from meshd._fast.outbound cimport outbound_t
from meshd._fast.planestate cimport plane_t

cdef struct load_t:             # of one thread, all zero at first
    uint64_t since              # start of the window, nanoseconds
    uint64_t worked             # in it

# Book a turn of the loop; 1 when the thread was at work for a good part of the last milliseconds.
cdef bint load_much_c(load_t* load, uint64_t begun, uint64_t now) noexcept nogil
# Either thread: there is much to do now.
cdef void tun_busy_c(plane_t* plane, uint32_t queue, uint64_t now) noexcept nogil
# The sender, which must not read the queue any more after a 1, nor use the context, until tun_own_c says so.
cdef bint tun_lend_c(plane_t* plane, uint32_t queue, outbound_t* out, uint64_t now) noexcept nogil
cdef bint tun_own_c(plane_t* plane, uint32_t queue) noexcept nogil
# The receiver: what it was lent or NULL, and the way back.
cdef outbound_t* tun_lent_c(plane_t* plane, uint32_t queue) noexcept nogil
cdef void tun_return_c(plane_t* plane, uint32_t queue) noexcept nogil
