"""The data plane as Python sees it; the contract is in plane.pyi.

Python calls come from one thread, the event loop's. It alone allocates, publishes and frees; the packet threads
(worker.pyx) read what is published and raise events through their rings.
"""
# freethreading: one loop thread; everything it shares with packet threads is in planestate.pxd.

import os
import threading
from collections import deque, namedtuple

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_FromStringAndSize

from meshd._fast.atomics cimport (
    fast_load32,
    fast_loadp,
    fast_lock,
    fast_now,
    fast_peek64,
    fast_store32,
    fast_storep,
    fast_swapp,
    fast_unlock,
)
from meshd._fast.epoch cimport (
    epoch_close_c,
    epoch_mark_c,
    epoch_mark_t,
    epoch_open_c,
    epoch_passed_c,
    epoch_reclaim_c,
    epoch_retire_c,
    epoch_wait_c,
)
from meshd._fast.filter cimport Filter
from meshd._fast.flow cimport FlowTable
from meshd._fast.inbound cimport (
    inbound_begin_c,
    inbound_close_c,
    inbound_deliver_c,
    inbound_flush_c,
    inbound_open_c,
    inbound_t,
    inbound_transport_c,
)
from meshd._fast.lpm cimport lpm_free_c, lpm_get_c, lpm_insert_c, lpm_new_c, lpm_reclaim_c, lpm_remove_c
from meshd._fast.outbound cimport (
    OUT_SENT,
    outbound_close_c,
    outbound_flush_c,
    outbound_open_c,
    outbound_t,
    outbound_to_peer_c,
)
from meshd._fast.peer cimport (
    path_t,
    peer_find_c,
    peer_forget_c,
    peer_install_c,
    peer_set_path_c,
    peer_slot_c,
    peer_t,
    peer_table_free_c,
)
from meshd._fast.planestate cimport (
    COUNTERS,
    LOOP_WORKER,
    MAX_QUEUES,
    MAX_SERVICES,
    RECEIVER_WORKER,
    WORKERS,
    drop_session_c,
    plane_t,
    services_t,
)
from meshd._fast cimport planestate as state
from meshd._fast.relayqueue cimport (
    RELAY_SLOTS,
    relay_news_c,
    relay_queue_free_c,
    relay_queue_new_c,
    relay_queue_t,
)
from meshd._fast.ring cimport (
    bell_open_c,
    bell_quiet_c,
    bell_ring_c,
    record_t,
    ring_free_c,
    ring_new_c,
    ring_peek_c,
    ring_release_c,
    ring_t,
)
from meshd._fast.ruleset cimport filter_t
from meshd._fast.segment cimport VNET_BYTES, vnet_header_t
from meshd._fast.session cimport (
    session_find_c,
    session_free_c,
    session_insert_c,
    session_new_c,
    session_remove_c,
    session_t,
    session_table_free_c,
    session_table_grown_c,
    session_table_new_c,
    session_table_t,
)
from meshd._fast.udpio cimport UDP_GSO, UDP_TAIL, udp_address_c, udp_probe_c, udp_reader_free_c, udp_reader_new_c, udp_reader_t
from meshd._fast.worker cimport receiver_run_c, sender_run_c

from meshd._fast.filter import Filter as _Filter
from meshd._fast.planestate import COUNTER_NAMES

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int microseconds)

EV_DATAGRAM = state.EV_DATAGRAM
EV_STAGED = state.EV_STAGED
EV_ACTIVE = state.EV_ACTIVE
EV_REKEY = state.EV_REKEY
EV_CONFIRMED = state.EV_CONFIRMED
EV_TSMP = state.EV_TSMP
EV_SERVICE = state.EV_SERVICE
EV_LOCAL = state.EV_LOCAL
EV_RELAY = state.EV_RELAY
EV_DENIED = state.EV_DENIED
EV_SEND_ERROR = state.EV_SEND_ERROR
EV_ECHO = state.EV_ECHO

cdef enum:
    OPEN_AREA = 262144          # plaintext of relayed packets between two writes
    ADOPT_TRIES = 1000          # of a millisecond: a receiver that has not taken new sockets by then is gone

PeerState = namedtuple("PeerState", (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "last_tx_data", "last_rx_data", "last_tx", "last_rx",
    "owed_since", "unanswered_since", "session_created", "current_local_index",
))


cdef inline double _seconds(const uint64_t* ns) noexcept:
    return fast_peek64(ns) / 1e9


cdef inline uint64_t _nanoseconds(double seconds) noexcept:
    if not seconds > 0:
        return 0
    return <uint64_t> (seconds * 1e9) if seconds < 1e9 else <uint64_t> 10 ** 18


cdef class Plane:
    cdef plane_t* c
    cdef outbound_t out             # the loop thread's own contexts, opened when first needed
    cdef inbound_t inb
    cdef uint8_t* opened            # OPEN_AREA
    cdef relay_queue_t* relays[RELAY_SLOTS]
    cdef uint32_t relay_count
    cdef FlowTable flows, shield_flows
    cdef object program             # the Filter in use
    cdef object old_programs        # (Filter, mark) that a packet thread may still be reading
    cdef object free_peers          # (index, mark), oldest first
    cdef dict routes                # peer -> tuple of prefixes (address and one byte of length)
    cdef uint32_t next_peer
    cdef uint32_t generation
    cdef epoch_mark_t route_mark
    cdef bint routes_changed
    cdef uint32_t turn
    cdef list threads

    def __cinit__(self, *, tun_fds, int udp4_fd, int udp6_fd, uint32_t mtu=1280, bint vnet_header=True,
                  uint64_t ring_bytes=1 << 20):
        cdef plane_t* plane
        cdef uint32_t i
        fds = [fd for fd in tun_fds if fd >= 0]
        if len(fds) > MAX_QUEUES:
            raise ValueError(f"at most {MAX_QUEUES} TUN queues")
        if not 576 <= mtu <= 65535 or not 4096 <= ring_bytes <= 1 << 28:
            raise ValueError("MTU or ring size out of range")
        self.c = plane = <plane_t*> calloc(1, sizeof(plane_t))
        if plane == NULL:
            raise MemoryError
        plane.stop_fd = plane.wake_fd = plane.bell.fd = -1
        plane.udp4 = plane.udp6 = <uint32_t> -1
        plane.stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        plane.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if bell_open_c(&plane.bell) < 0:
            raise OSError("no eventfd")
        plane.tun_count = <int> len(fds)
        for i in range(len(fds)):
            plane.tun_fds[i] = fds[i]
        plane.mtu = mtu
        plane.vnet = vnet_header
        plane.sessions = session_table_new_c(64)
        plane.routes = lpm_new_c()
        if not epoch_open_c(&plane.epoch) or plane.sessions == NULL or plane.routes == NULL:
            raise MemoryError
        for i in range(<uint32_t> WORKERS):
            if i < <uint32_t> plane.tun_count or i >= RECEIVER_WORKER:
                plane.workers[i].ring = ring_new_c(ring_bytes, &plane.bell)
                if plane.workers[i].ring == NULL:
                    raise MemoryError
        self.flows = FlowTable()
        self.shield_flows = FlowTable()
        plane.flows = self.flows.c
        plane.shield_flows = self.shield_flows.c
        self.old_programs = deque()
        self.free_peers = deque()
        self.routes = {}
        self.threads = []
        self.set_filter(_Filter((), ()))
        self._take_sockets(udp4_fd, udp6_fd)

    def __dealloc__(self):
        cdef plane_t* plane = self.c
        cdef uint32_t i
        cdef session_table_t* table
        if plane == NULL:
            return
        outbound_close_c(&self.out)
        inbound_close_c(&self.inb)
        free(self.opened)
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
        for i in range(self.relay_count):
            relay_queue_free_c(self.relays[i])
        for i in range(<uint32_t> WORKERS):
            ring_free_c(plane.workers[i].ring)
        for fd in (plane.stop_fd, plane.wake_fd, plane.bell.fd):
            if fd >= 0:
                os.close(fd)
        free(plane)

    @property
    def event_fd(self) -> int:
        return self.c.bell.fd

    # -- threads

    def start(self) -> None:
        cdef uint32_t i
        if self.threads:
            raise RuntimeError("the plane is running")
        fast_store32(&self.c.stopping, 0)
        for i in range(<uint32_t> self.c.tun_count):
            self._thread(f"meshd-send-{i}", self._send_loop, (i,))
        self._thread("meshd-receive", self._receive_loop, ())

    def stop(self) -> None:
        threads, self.threads = self.threads, []
        if not threads:
            return
        fast_store32(&self.c.stopping, 1)
        os.eventfd_write(self.c.stop_fd, 1)
        for thread in threads:
            thread.join()
        os.eventfd_read(self.c.stop_fd)

    def _thread(self, name, target, args):
        # Daemon threads: a program that forgets stop() can still end.
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _send_loop(self, uint32_t queue):
        cdef outbound_t* out = <outbound_t*> malloc(sizeof(outbound_t))
        if out == NULL or not outbound_open_c(out, self.c, queue, 1):
            free(out)
            raise MemoryError
        with nogil:
            sender_run_c(out, queue)
        outbound_close_c(out)
        free(out)

    def _receive_loop(self):
        cdef inbound_t inb
        cdef udp_reader_t* reader = udp_reader_new_c()
        if reader == NULL or not inbound_open_c(&inb, self.c, RECEIVER_WORKER):
            udp_reader_free_c(reader)
            raise MemoryError
        with nogil:
            receiver_run_c(&inb, reader)
        inbound_close_c(&inb)
        udp_reader_free_c(reader)

    # -- sockets

    cdef _take_sockets(self, int udp4_fd, int udp6_fd):
        cdef uint32_t tail = (self.c.udp_mode4 | self.c.udp_mode6) & UDP_TAIL
        self.c.udp_mode4 = (udp_probe_c(udp4_fd) if udp4_fd >= 0 else 0) | tail
        self.c.udp_mode6 = (udp_probe_c(udp6_fd) if udp6_fd >= 0 else 0) | tail
        fast_store32(&self.c.udp4, <uint32_t> udp4_fd)
        fast_store32(&self.c.udp6, <uint32_t> udp6_fd)
        fast_store32(&self.c.udp_changes, self.c.udp_changes + 1)

    def set_udp(self, int udp4_fd, int udp6_fd) -> None:
        cdef uint32_t change
        self._take_sockets(udp4_fd, udp6_fd)
        if not self.threads:
            return
        change = self.c.udp_changes
        os.eventfd_write(self.c.wake_fd, 1)
        with nogil:
            self._await_sockets(change)

    cdef void _await_sockets(self, uint32_t change) noexcept nogil:
        """The caller may close the old sockets afterwards: nobody uses them any more."""
        cdef uint32_t i
        epoch_wait_c(&self.c.epoch)
        for i in range(<uint32_t> ADOPT_TRIES):
            if fast_load32(&self.c.udp_adopted) == change:
                return
            usleep(1000)

    def set_offload(self, *, bint udp_gso=True, bint equal_tail=True) -> None:
        cdef uint32_t tail = 0 if equal_tail else UDP_TAIL
        for fd, v4 in ((<int> self.c.udp4, True), (<int> self.c.udp6, False)):
            mode = (udp_probe_c(fd) if fd >= 0 and udp_gso else 0) | tail
            if v4:
                self.c.udp_mode4 = mode
            else:
                self.c.udp_mode6 = mode

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
        self.clear_sessions(peer)
        fast_store32(&slot.in_use, 0)
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

    def add_route(self, int peer, bytes address not None, int bits) -> None:
        cdef int status
        self._peer(peer)
        status = lpm_insert_c(self.c.routes, <const uint8_t*> <char*> address, _family(address), bits, peer)
        if status < 0:
            raise MemoryError if status == -3 else ValueError("not a prefix")
        key = address + bytes((bits,))
        known = self.routes.get(peer, ())
        if key not in known:
            self.routes[peer] = (*known, key)
        self._routes_done()

    def remove_route(self, bytes address not None, int bits) -> None:
        cdef int owner = lpm_get_c(self.c.routes, <const uint8_t*> <char*> address, _family(address), bits)
        if owner < 0:
            return
        key = address + bytes((bits,))
        self.routes[owner] = tuple(prefix for prefix in self.routes.get(owner, ()) if prefix != key)
        self._drop_route(owner, key)

    cdef _drop_route(self, int peer, bytes prefix):
        """Unless the prefix has moved to another peer."""
        cdef const uint8_t* raw = <const uint8_t*> <char*> prefix
        cdef int size = <int> len(prefix) - 1
        cdef int family = 4 if size == 4 else 6
        if lpm_get_c(self.c.routes, raw, family, raw[size]) == peer:
            lpm_remove_c(self.c.routes, raw, family, raw[size])
            self._routes_done()

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
            session = <session_t*> (slot.next if slot.next != NULL else
                                    slot.current if slot.current != NULL else slot.previous)
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
        shield.pairs = NULL
        shield.rules_n = 0
        fast_storep(&self.c.shield, shield)
        fast_storep(&self.c.filter, program.c)
        epoch_retire_c(&self.c.epoch, old, free)
        if self.program is not None:
            self.old_programs.append((self.program, self._mark()))
        self.program = program
        self._reclaim()

    def set_jailed(self, int peer, bint jailed) -> None:
        fast_store32(&self._peer(peer).jailed, jailed)

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

    def watch_echo(self, uint16_t identifier) -> None:
        self.c.echo[identifier >> 6] |= <uint64_t> 1 << (identifier & 63)

    # -- packets of the loop

    cdef outbound_t* _outbound(self) except NULL:
        if self.out.arena == NULL and not outbound_open_c(&self.out, self.c, LOOP_WORKER, 0):
            raise MemoryError
        self.out.now = fast_now()
        return &self.out

    cdef inbound_t* _inbound(self) except NULL:
        if self.inb.gro == NULL and not inbound_open_c(&self.inb, self.c, LOOP_WORKER):
            raise MemoryError
        self.inb.now = fast_now()
        inbound_begin_c(&self.inb)
        return &self.inb

    def send_keepalive(self, int peer) -> bool:
        cdef outbound_t* out = self._outbound()
        cdef int result
        self._peer(peer)
        result = outbound_to_peer_c(out, peer, NULL, NULL, 0)
        outbound_flush_c(out)
        return result == OUT_SENT

    def send_staged(self, int peer, list packets not None) -> int:
        cdef outbound_t* out = self._outbound()
        cdef vnet_header_t vnet
        cdef const uint8_t* raw
        cdef bytes packet
        cdef int sent = 0
        self._peer(peer)
        for packet in packets:
            if not VNET_BYTES < len(packet) <= VNET_BYTES + 65535:
                raise ValueError("a staged packet is a virtio-net header and a packet")
            raw = <const uint8_t*> <char*> packet
            memcpy(&vnet, raw, VNET_BYTES)
            if outbound_to_peer_c(out, peer, &vnet, raw + VNET_BYTES, <uint32_t> len(packet) - VNET_BYTES) == OUT_SENT:
                sent += 1
        outbound_flush_c(out)
        return sent

    def send_packet(self, int peer, bytes packet not None) -> bool:
        cdef outbound_t* out = self._outbound()
        cdef vnet_header_t vnet
        cdef int result
        self._peer(peer)
        if not 0 < len(packet) <= 65535:
            raise ValueError("packet length")
        memset(&vnet, 0, sizeof(vnet))
        result = outbound_to_peer_c(out, peer, &vnet, <const uint8_t*> <char*> packet, <uint32_t> len(packet))
        outbound_flush_c(out)
        return result == OUT_SENT

    def deliver(self, bytes packet not None) -> bool:
        cdef inbound_t* inb = self._inbound()
        if not 20 <= len(packet) <= 65535:
            raise ValueError("packet length")
        if not inbound_deliver_c(inb, <const uint8_t*> <char*> packet, <uint32_t> len(packet)):
            return False
        inbound_flush_c(inb)
        return True

    def open_from(self, list packets not None) -> list:
        cdef inbound_t* inb = self._inbound()
        cdef uint32_t used = 0, n
        cdef bytes packet
        cdef list rest = []
        if self.opened == NULL:
            self.opened = <uint8_t*> malloc(OPEN_AREA)
            if self.opened == NULL:
                raise MemoryError
        for packet in packets:
            n = <uint32_t> len(packet)
            if n > 65536:
                rest.append(packet)
                continue
            if used + n > OPEN_AREA:
                inbound_flush_c(inb)
                used = 0
            if not inbound_transport_c(inb, <const uint8_t*> <char*> packet, n, self.opened + used):
                rest.append(packet)
            used += n
        inbound_flush_c(inb)
        return rest

    def take_relayed(self, int relay) -> bytes:
        cdef relay_queue_t* queue = self._relay(relay)
        cdef bytes frames
        fast_lock(&queue.lock)
        frames = PyBytes_FromStringAndSize(<char*> queue.data, queue.used)
        queue.used = 0
        queue.told = 0
        fast_unlock(&queue.lock)
        return frames

    # -- state

    def peer_state(self, int peer):
        cdef peer_t* slot = self._peer(peer)
        # Only this thread frees sessions, so the pointer stays good.
        cdef session_t* current = <session_t*> fast_loadp(&slot.current)
        return PeerState(
            fast_peek64(&slot.rx_bytes), fast_peek64(&slot.tx_bytes), fast_peek64(&slot.rx_packets),
            fast_peek64(&slot.tx_packets), _seconds(&slot.last_tx_data), _seconds(&slot.last_rx_data),
            _seconds(&slot.last_tx), _seconds(&slot.last_rx), _seconds(&slot.owed_since),
            _seconds(&slot.unanswered_since), _seconds(&current.created) if current != NULL else 0.0,
            current.local_index if current != NULL else 0,
        )

    def clear_active(self, int peer) -> None:
        fast_store32(&self._peer(peer).active, 0)

    def counters(self) -> dict:
        cdef uint32_t i, w
        cdef uint64_t total, lost = 0
        cdef dict counts = {}
        for i in range(<uint32_t> COUNTERS):
            total = 0
            for w in range(<uint32_t> WORKERS):
                total += fast_peek64(&self.c.workers[w].counts[i])
            counts[COUNTER_NAMES[i]] = total
        for w in range(<uint32_t> WORKERS):
            if self.c.workers[w].ring != NULL:
                lost += fast_peek64(&self.c.workers[w].ring.dropped)
        counts["events_lost"] = lost
        return counts

    # -- events

    def drain(self, int limit=256) -> list:
        cdef list events = []
        self._reclaim()
        if self._collect(events, limit):
            return events
        bell_quiet_c(&self.c.bell)
        if self._collect(events, limit):
            bell_ring_c(&self.c.bell)
        return events

    cdef bint _collect(self, list events, int limit):
        """Take events in turn from all rings; True when the limit ended it."""
        cdef ring_t* ring
        cdef const record_t* record
        cdef uint32_t i
        for i in range(self.relay_count):
            if relay_news_c(self.relays[i]):
                events.append((EV_RELAY, self.relays[i].relay))
        for i in range(<uint32_t> WORKERS):
            ring = self.c.workers[(self.turn + i) % WORKERS].ring
            if ring == NULL:
                continue
            while len(events) < limit:
                record = ring_peek_c(ring)
                if record == NULL:
                    break
                event = self._event(record)
                ring_release_c(ring, record)
                if event is not None:
                    events.append(event)
            else:
                self.turn += 1
                return True
        return False

    cdef object _event(self, const record_t* record):
        cdef uint16_t kind = record.kind
        cdef peer_t* slot
        cdef bytes data = PyBytes_FromStringAndSize(<const char*> record + sizeof(record_t), record.bytes)
        if kind == state.EV_DATAGRAM:
            address = PyBytes_FromStringAndSize(<const char*> record.address, record.address_bytes)
            return kind, address, record.port, data
        if kind == state.EV_SERVICE:
            return kind, data
        slot = peer_find_c(&self.c.peers, record.subject)
        if slot == NULL or slot.generation != record.generation:
            return None         # of a peer that is gone
        if kind == state.EV_ACTIVE:
            return kind, record.subject
        if kind in (state.EV_REKEY, state.EV_CONFIRMED, state.EV_SEND_ERROR):
            return kind, record.subject, record.value
        return kind, record.subject, data


cdef int _family(bytes address) except -1:
    if len(address) == 4:
        return 4
    if len(address) == 16:
        return 6
    raise ValueError("an address has 4 or 16 bytes")
