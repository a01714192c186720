"""What the event loop publishes for packet threads; the contract is in registry.pxd, the methods' in plane.pyi."""
# freethreading: one loop thread; everything it shares with packet threads is in planestate.pxd.

import os
from collections import deque

from libc.errno cimport errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from meshd._fast.atomics cimport fast_peek32, fast_store32, fast_storep, fast_swapp
from meshd._fast.coalesce cimport GRO_TCP, GRO_UDP
from meshd._fast.epoch cimport (
    epoch_close_c,
    epoch_mark_c,
    epoch_open_c,
    epoch_passed_c,
    epoch_reclaim_c,
    epoch_retire_c,
)
from meshd._fast.filter cimport Filter
from meshd._fast.lpm cimport (
    LPM_NO_MEMORY,
    lpm_free_c,
    lpm_get_c,
    lpm_insert_c,
    lpm_new_c,
    lpm_reclaim_c,
    lpm_remove_c,
)
from meshd._fast.masquerade cimport Masquerade
from meshd._fast.peer cimport (
    path_t,
    peer_find_c,
    peer_forget_c,
    peer_install_c,
    peer_session_c,
    peer_set_path_c,
    peer_slot_c,
    peer_table_free_c,
)
from meshd._fast.planestate cimport (
    LOOP_WORKER,
    MAX_QUEUES,
    MAX_RECEIVERS,
    MAX_SERVICES,
    RECEIVER_WORKER,
    WORKERS,
    drop_session_c,
    own_address_t,
    own_addresses_t,
    services_t,
)
from meshd._fast.relayqueue cimport relay_queue_free_c, relay_queue_new_c
from meshd._fast.ring cimport bell_open_c, ring_free_c, ring_new_c
from meshd._fast.ruleset cimport filter_t
from meshd._fast.session cimport (
    session_find_c,
    session_free_c,
    session_insert_c,
    session_new_c,
    session_remove_c,
    session_table_free_c,
    session_table_grown_c,
    session_table_new_c,
    session_table_t,
)
from meshd._fast.udpio cimport udp_address_c
from meshd._fast.via cimport Via

from meshd._fast.filter import Filter as _Filter

cdef enum:
    FEW_ROUTES = 9              # of a peer: looked through one by one


cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)


cdef inline void _close(int fd) noexcept nogil:
    # Not os.close: there are no modules left when this runs at the end of the interpreter.
    if fd >= 0:
        c_close(fd)


cdef inline uint64_t _nanoseconds(double seconds) noexcept:
    if not seconds > 0:
        return 0
    return <uint64_t> (seconds * 1e9) if seconds < 1e9 else <uint64_t> 10 ** 18


cdef tuple sockets_of(udp):
    """The descriptors of one family, from one of them (-1: none) or a sequence."""
    cdef tuple fds = tuple(fd for fd in ((udp,) if isinstance(udp, int) else udp) if fd >= 0)
    if len(fds) > MAX_RECEIVERS:
        raise ValueError(f"at most {MAX_RECEIVERS} sockets of a family")
    return fds


cdef class Registry:
    def __cinit__(self, *, tun_fds, udp4_fd, udp6_fd, uint32_t mtu=1280, bint vnet_header=True,
                  uint64_t ring_bytes=1 << 20):
        cdef plane_t* plane
        cdef uint32_t i, receivers
        fds = [fd for fd in tun_fds if fd >= 0]
        if len(fds) > MAX_QUEUES:
            raise ValueError(f"at most {MAX_QUEUES} TUN queues")
        receivers = max(1, *(len(sockets_of(udp)) for udp in (udp4_fd, udp6_fd)))
        if not 576 <= mtu <= 65535 or not 4096 <= ring_bytes <= 1 << 28:
            raise ValueError("MTU or ring size out of range")
        self.c = plane = <plane_t*> calloc(1, sizeof(plane_t))
        if plane == NULL:
            raise MemoryError
        plane.stop_fd = plane.bell.fd = -1
        for i in range(<uint32_t> MAX_RECEIVERS):
            plane.wake_fds[i] = -1
            plane.udp4[i] = plane.udp6[i] = <uint32_t> -1
        for i in range(<uint32_t> MAX_QUEUES):
            plane.tuns[i].fd = plane.tuns[i].wake_fd = -1
        plane.receivers = receivers
        plane.gro_features = GRO_TCP | GRO_UDP
        plane.stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for i in range(receivers):
            plane.wake_fds[i] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if bell_open_c(&plane.bell) < 0:
            raise OSError(errno, os.strerror(errno))
        plane.tun_count = <int> len(fds)
        for i in range(len(fds)):
            plane.tuns[i].fd = fds[i]
            plane.tuns[i].wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        plane.mtu = mtu
        plane.vnet = vnet_header
        plane.sessions = session_table_new_c(64)
        plane.routes = lpm_new_c()
        if not epoch_open_c(&plane.epoch) or plane.sessions == NULL or plane.routes == NULL:
            raise MemoryError
        for i in range(<uint32_t> WORKERS):
            if i < <uint32_t> plane.tun_count or 0 <= <int> i - RECEIVER_WORKER < <int> receivers or i == LOOP_WORKER:
                plane.workers[i].ring = ring_new_c(ring_bytes, &plane.bell)
                if plane.workers[i].ring == NULL:
                    raise MemoryError
        self.flows = FlowTable()
        self.shield_flows = FlowTable()
        plane.flows = self.flows.c
        plane.shield_flows = self.shield_flows.c
        self.old_programs = deque()
        self.masquerades = {}
        self.free_peers = deque()
        self.routes = {}
        self.contested = {}
        self.set_filter(_Filter((), ()))

    def __dealloc__(self):
        cdef plane_t* plane = self.c
        cdef uint32_t i
        cdef session_table_t* table
        if plane == NULL:
            return
        table = <session_table_t*> plane.sessions
        if table != NULL:
            for i in range(<uint32_t> (table.mask + 1)):
                if <size_t> table.slots[i] > 1:
                    session_free_c(table.slots[i])
            session_table_free_c(table)
        if plane.epoch.readers != NULL:
            epoch_close_c(&plane.epoch)
        peer_table_free_c(&plane.peers)
        lpm_free_c(plane.routes)
        free(plane.shield)
        free(plane.services)
        free(plane.own)
        for i in range(self.relay_count):
            relay_queue_free_c(self.relays[i])
        for i in range(<uint32_t> WORKERS):
            ring_free_c(plane.workers[i].ring)
        for i in range(<uint32_t> MAX_QUEUES):
            _close(plane.tuns[i].wake_fd)
        for i in range(<uint32_t> MAX_RECEIVERS):
            _close(plane.wake_fds[i])
        _close(plane.stop_fd)
        _close(plane.bell.fd)
        free(plane)

    # -- peers

    cdef peer_t* _peer(self, int peer) except NULL:
        cdef peer_t* slot = peer_find_c(&self.c.peers, peer)
        if slot == NULL:
            raise KeyError(peer)
        return slot

    def add_peer(self, bytes node_public not None) -> int:
        cdef peer_t* slot
        cdef int index
        if len(node_public) != 32:
            raise ValueError("a node key has 32 bytes")
        if self.free_peers and self._passed(self.free_peers[0][1]):
            index = self.free_peers.popleft()[0]
        else:
            index = self.next_peer
            self.next_peer += 1
        slot = peer_slot_c(&self.c.peers, index)
        if slot == NULL:
            self.next_peer -= 1
            raise MemoryError("too many peers")
        self.generation += 1
        memset(slot, 0, sizeof(peer_t))
        memcpy(slot.public_key, <char*> node_public, 32)
        slot.generation = self.generation
        fast_store32(&slot.in_use, 1)
        return index

    def remove_peer(self, int peer) -> None:
        cdef peer_t* slot = self._peer(peer)
        for prefix in self.routes.pop(peer, ()):
            self._drop_route(peer, prefix)
        self._routes_done()
        self.clear_sessions(peer)
        fast_store32(&slot.in_use, 0)
        self._retire_masquerade(self.masquerades.pop(peer, None))
        self.free_peers.append((peer, self._mark()))

    cdef bytes _mark(self):
        cdef epoch_mark_t mark
        epoch_mark_c(&self.c.epoch, &mark)
        return (<char*> &mark)[:sizeof(mark)]

    cdef bint _passed(self, bytes mark):
        return epoch_passed_c(&self.c.epoch, <epoch_mark_t*> <char*> mark)

    def set_path(self, int peer, bytes address, int port, double trusted_until, int relay) -> None:
        cdef peer_t* slot = self._peer(peer)
        cdef path_t path
        memset(&path, 0, sizeof(path))
        if not 0 <= port <= 65535:
            raise ValueError("port")
        if address is not None and not udp_address_c(&path.address, <const uint8_t*> <char*> address,
                                                     <uint32_t> len(address), <uint16_t> port):
            raise ValueError("an address has 4 or 16 bytes")
        path.trusted_until = _nanoseconds(trusted_until)
        if relay:
            path.relay = self._relay(relay)
        peer_set_path_c(slot, &path)

    def set_bundles(self, int peer, bint bundles) -> None:
        fast_store32(&self._peer(peer).bundles, bundles)

    def takes_bundles(self, int peer) -> bool:
        return fast_peek32(&self._peer(peer).bundles) != 0

    cdef relay_queue_t* _relay(self, int relay) except NULL:
        cdef uint32_t i
        for i in range(self.relay_count):
            if self.relays[i].relay == relay:
                return self.relays[i]
        if self.relay_count == RELAY_SLOTS:
            raise ValueError(f"more than {RELAY_SLOTS} relays")
        self.relays[self.relay_count] = relay_queue_new_c(relay)
        if self.relays[self.relay_count] == NULL:
            raise MemoryError
        self.relay_count += 1
        return self.relays[self.relay_count - 1]

    # -- routes

    def set_routes(self, int peer, prefixes) -> None:
        cdef tuple known = self.routes.get(peer, ())
        cdef list keys = [prefix.network_address.packed + bytes((prefix.prefixlen,)) for prefix in prefixes]
        cdef object before = known if len(known) < FEW_ROUTES else set(known)
        cdef object after = keys if len(keys) < FEW_ROUTES else set(keys)
        cdef bytes key
        self._peer(peer)
        # All are noted first, so that they go with the peer, whatever happens on the way.
        self.routes[peer] = known + tuple(keys)
        for key in keys:
            if key not in before:
                self._insert_route(peer, key)
        for key in known:
            if key not in after:
                self._drop_route(peer, key)
        self.routes[peer] = tuple(keys)
        self._routes_done()

    def add_route(self, int peer, bytes address not None, int bits) -> None:
        cdef tuple known = self.routes.get(peer, ())
        self._peer(peer)
        if not 0 <= bits <= 128:
            raise ValueError("not a prefix")
        key = address + bytes((bits,))
        self._insert_route(peer, key)
        if key not in known:
            self.routes[peer] = (*known, key)
        self._routes_done()

    cdef _insert_route(self, int peer, bytes key):
        cdef const uint8_t* raw = <const uint8_t*> <char*> key
        cdef int size = <int> len(key) - 1
        cdef int family = 4 if size == 4 else 6 if size == 16 else 0
        cdef int owner = lpm_get_c(self.c.routes, raw, family, raw[size])
        cdef int status = lpm_insert_c(self.c.routes, raw, family, raw[size], peer)
        if status < 0:
            raise MemoryError if status == LPM_NO_MEMORY else ValueError("not a prefix")
        if owner >= 0 and owner != peer:
            self._give_up_claim(peer, key)
            self.contested.setdefault(key, {})[owner] = None

    def remove_route(self, bytes address not None, int bits) -> None:
        cdef int owner = lpm_get_c(self.c.routes, <const uint8_t*> <char*> address, _family(address), bits)
        if owner < 0:
            return
        key = address + bytes((bits,))
        self.routes[owner] = tuple(prefix for prefix in self.routes.get(owner, ()) if prefix != key)
        self._drop_route(owner, key)
        self._routes_done()

    cdef _drop_route(self, int peer, bytes prefix):
        """Unless the prefix has moved to another peer. One that is carried by others as well goes to one of them."""
        cdef const uint8_t* raw = <const uint8_t*> <char*> prefix
        cdef int size = <int> len(prefix) - 1
        cdef int family = 4 if size == 4 else 6
        cdef dict others = self.contested.get(prefix)
        cdef int heir
        if lpm_get_c(self.c.routes, raw, family, raw[size]) != peer:
            self._give_up_claim(peer, prefix)
        elif others is not None:
            heir = next(reversed(others))
            self._give_up_claim(heir, prefix)
            lpm_insert_c(self.c.routes, raw, family, raw[size], heir)
        else:
            lpm_remove_c(self.c.routes, raw, family, raw[size])

    cdef _give_up_claim(self, int peer, bytes prefix):
        """A peer does not wait for the prefix any more, if it did."""
        cdef dict others = self.contested.get(prefix)
        if others is not None:
            others.pop(peer, None)
            if not others:
                del self.contested[prefix]

    cdef _routes_done(self):
        epoch_mark_c(&self.c.epoch, &self.route_mark)
        self.routes_changed = True
        self._reclaim()

    cdef _reclaim(self):
        """Free what no packet thread can hold any more."""
        self._reap()
        epoch_reclaim_c(&self.c.epoch)
        if self.routes_changed and epoch_passed_c(&self.c.epoch, &self.route_mark):
            lpm_reclaim_c(self.c.routes)
            self.routes_changed = False
        while self.old_programs and self._passed(self.old_programs[0][1]):
            self.old_programs.popleft()

    # -- sessions

    def install_session(self, int peer, *, str slot not None, uint32_t local_index, uint32_t remote_index,
                        bytes send_key not None, bytes receive_key not None, double created, bint initiator,
                        uint64_t send_counter=0) -> None:
        cdef peer_t* owner = self._peer(peer)
        cdef session_t* session
        cdef session_t* dropped[2]
        cdef int i, n
        if slot not in ("current", "next") or len(send_key) != 32 or len(receive_key) != 32:
            raise ValueError("session slot or key length")
        self._reap()
        if session_find_c(<session_table_t*> self.c.sessions, local_index) != NULL:
            raise ValueError("session index in use")
        session = session_new_c()
        if session == NULL:
            raise MemoryError
        session.local_index = local_index
        session.remote_index = remote_index
        session.peer = peer
        session.initiator = initiator
        session.created = _nanoseconds(created)
        session.send_counter = send_counter
        memcpy(session.send_key, <char*> send_key, 32)
        memcpy(session.receive_key, <char*> receive_key, 32)
        if not self._insert(session):
            session_free_c(session)
            raise MemoryError
        n = peer_install_c(owner, session, slot == "current", dropped)
        fast_store32(&owner.bundles, 0)     # whoever made this session may be another program than before
        for i in range(n):
            drop_session_c(self.c, dropped[i])
        self._reclaim()

    cdef bint _insert(self, session_t* session):
        cdef session_table_t* old = <session_table_t*> self.c.sessions
        cdef session_table_t* grown
        if session_insert_c(old, session):
            return True
        grown = session_table_grown_c(old)
        if grown == NULL:
            return False
        session_insert_c(grown, session)
        fast_storep(&self.c.sessions, grown)
        epoch_retire_c(&self.c.epoch, old, session_table_free_c)
        return True

    cdef void _reap(self) noexcept:
        """Remove dropped sessions from the table; their keys are wiped once no thread can be using them."""
        cdef session_t* session = <session_t*> fast_swapp(&self.c.dead, NULL)
        cdef session_t* following
        while session != NULL:
            following = session.next_dead
            session_remove_c(<session_table_t*> self.c.sessions, session)
            epoch_retire_c(&self.c.epoch, session, session_free_c)
            session = following

    def remove_session(self, uint32_t local_index) -> None:
        cdef session_t* session
        self._reap()
        session = session_find_c(<session_table_t*> self.c.sessions, local_index)
        if session != NULL:
            self._drop(session)
            self._reclaim()

    cdef void _drop(self, session_t* session) noexcept:
        cdef peer_t* owner = peer_find_c(&self.c.peers, session.peer)
        if owner == NULL or peer_forget_c(owner, session):
            drop_session_c(self.c, session)

    def clear_sessions(self, int peer) -> None:
        cdef peer_t* slot = self._peer(peer)
        cdef session_t* session
        while True:
            session = peer_session_c(slot)
            if session == NULL:
                break
            self._drop(session)
        self._reclaim()

    # -- policy

    def set_filter(self, Filter program not None) -> None:
        cdef filter_t* shield = <filter_t*> malloc(sizeof(filter_t))
        cdef void* old = self.c.shield
        if shield == NULL:
            raise MemoryError
        # For jailed peers: the same local networks and not one rule.
        shield[0] = program.c[0]
        shield.linear = 1
        shield.rules_n = 0
        program.published = True
        fast_storep(&self.c.shield, shield)
        fast_storep(&self.c.filter, program.c)
        epoch_retire_c(&self.c.epoch, old, free)
        if self.program is not None:
            self.old_programs.append((self.program, self._mark()))
        self.program, self.program_is_ours = program, False
        self._reclaim()

    def set_rules(self, rules, local) -> None:
        cdef Filter program = self.program
        if self.program_is_ours:
            if self._passed(self.filter_mark):
                program.rules.settle()
            changed = program.rules.change(rules, local)
            self.filter_mark = self._mark()
            if changed:
                return
        self.set_filter(_Filter(rules, local))
        self.program_is_ours, self.filter_mark = True, self._mark()

    def forget_flows(self) -> None:
        cdef FlowTable fresh = FlowTable()
        old, self.flows = self.flows, fresh
        fast_storep(<void**> &self.c.flows, fresh.c)
        self.old_programs.append((old, self._mark()))
        self._reclaim()

    def set_jailed(self, int peer, bint jailed) -> None:
        fast_store32(&self._peer(peer).jailed, jailed)

    def set_roams(self, int peer, bint roams) -> None:
        fast_store32(&self._peer(peer).roams, roams)

    def set_masquerade(self, int peer, pairs not None) -> None:
        cdef peer_t* slot = self._peer(peer)
        cdef Masquerade made = Masquerade(pairs)
        old = self.masquerades.pop(peer, None)
        if made.c.v4 or made.c.v6:
            self.masquerades[peer] = made
            fast_storep(&slot.masquerade, &made.c)
        else:
            fast_storep(&slot.masquerade, NULL)
        self._retire_masquerade(old)

    cdef _retire_masquerade(self, old):
        """Keep what a packet thread may still be reading. It must be out of sight by now: the mark counts from here."""
        if old is not None:
            self.old_programs.append((old, self._mark()))

    def set_ipv4(self, int peer, bytes address) -> None:
        cdef peer_t* slot = self._peer(peer)
        cdef uint32_t raw = 0
        if address is not None:
            if len(address) != 4:
                raise ValueError("an IPv4 address has 4 bytes")
            memcpy(&raw, <char*> address, 4)
        fast_store32(&slot.ipv4, raw)

    def set_via(self, prefixes not None, own) -> None:
        cdef Via old = self.via
        cdef Via made = Via(prefixes, own=own, flows=old.flows if old is not None else None)
        if old is None and not made.c.count:
            return
        made.c.peers = self.c.routes
        # Without a TUN nobody would forward what was translated.
        fast_storep(&self.c.via, &made.c if made.c.count and self.c.tun_count else NULL)
        if old is not None:
            self.old_programs.append((old, self._mark()))
        self.via = made
        self._reclaim()

    def set_service_addresses(self, addresses not None) -> None:
        cdef services_t* services
        cdef void* old = self.c.services
        if len(addresses) > MAX_SERVICES or any(len(address) not in (4, 16) for address in addresses):
            raise ValueError(f"at most {MAX_SERVICES} addresses of 4 or 16 bytes")
        services = <services_t*> calloc(1, sizeof(services_t))
        if services == NULL:
            raise MemoryError
        for address in addresses:
            services.bytes[services.count] = <uint8_t> len(address)
            memcpy(services.addresses[services.count], <char*> <bytes> address, len(address))
            services.count += 1
        fast_storep(&self.c.services, services)
        epoch_retire_c(&self.c.epoch, old, free)

    def set_own_addresses(self, addresses not None) -> None:
        cdef own_addresses_t* own
        cdef own_address_t* at
        cdef void* old = self.c.own
        if any(len(address) not in (4, 16) for address in addresses):
            raise ValueError("an address has 4 or 16 bytes")
        own = <own_addresses_t*> calloc(1, sizeof(own_addresses_t) + len(addresses) * sizeof(own_address_t))
        if own == NULL:
            raise MemoryError
        for address in addresses:
            at = &own.addresses[own.count]
            at.bytes = <uint32_t> len(address)
            memcpy(at.raw, <char*> <bytes> address, len(address))
            own.count += 1
        fast_storep(&self.c.own, own)
        epoch_retire_c(&self.c.epoch, old, free)

    def watch_echo(self, uint16_t identifier) -> None:
        self.c.echo[identifier >> 6] |= <uint64_t> 1 << (identifier & 63)


cdef int _family(bytes address) except -1:
    if len(address) == 4:
        return 4
    if len(address) == 16:
        return 6
    raise ValueError("an address has 4 or 16 bytes")
