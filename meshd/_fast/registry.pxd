"""What the event loop publishes for packet threads: peers, paths, routes, sessions, policy.

The loop thread alone allocates, publishes and frees. What it takes out of sight is freed once every packet thread has
passed a quiet point (epoch.pxd); _reclaim does that, and every change and drain calls it.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshd._fast.epoch cimport epoch_mark_t
from meshd._fast.flow cimport FlowTable
from meshd._fast.peer cimport peer_t
from meshd._fast.planestate cimport plane_t
from meshd._fast.relayqueue cimport RELAY_SLOTS, relay_queue_t
from meshd._fast.session cimport session_t

cdef tuple sockets_of(udp)

cdef class Registry:
    cdef plane_t* c
    cdef relay_queue_t* relays[RELAY_SLOTS]
    cdef uint32_t relay_count
    cdef FlowTable flows, shield_flows
    cdef object program             # the Filter in use
    cdef bint program_is_ours       # made by set_rules, so that it may be changed
    cdef bytes filter_mark          # when it was changed last
    cdef object old_programs        # (Filter, FlowTable, Masquerade or Via, mark) that packet threads may be reading
    cdef dict masquerades           # peer -> Masquerade
    cdef object via                 # the Via in use, or the one before for its flows, or None
    cdef object free_peers          # (index, mark), oldest first
    cdef dict routes                # peer -> tuple of prefixes (address and one byte of length)
    cdef dict contested             # prefix -> dict of those who carry it besides its owner, the last owner last
    cdef uint32_t next_peer
    cdef uint32_t generation
    cdef epoch_mark_t route_mark
    cdef bint routes_changed

    cdef peer_t* _peer(self, int peer) except NULL
    cdef relay_queue_t* _relay(self, int relay) except NULL
    cdef bytes _mark(self)
    cdef bint _passed(self, bytes mark)
    cdef _insert_route(self, int peer, bytes key)
    cdef _drop_route(self, int peer, bytes prefix)
    cdef _give_up_claim(self, int peer, bytes prefix)
    cdef _routes_done(self)
    cdef _retire_masquerade(self, old)
    cdef _reclaim(self)
    cdef bint _insert(self, session_t* session)
    cdef void _reap(self) noexcept
    cdef void _drop(self, session_t* session) noexcept
