"""The data plane as Python sees it; the contract is in plane.pyi.

All calls come from one thread, the event loop's. What it configures is in registry.pyx; the packet threads (worker.pyx)
read that and raise events through their rings.
"""
# freethreading: one loop thread; everything it shares with packet threads is in planestate.pxd.

import os
import select
import threading
from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from meshd._fast cimport planestate as state
from meshd._fast.atomics cimport (
    fast_load32,
    fast_loadp,
    fast_now,
    fast_peek64,
    fast_store32,
)
from meshd._fast.coalesce cimport GRO_TCP, GRO_UDP
from meshd._fast.derpframes cimport RelayedPackets, relayed_run_t
from meshd._fast.epoch cimport epoch_wait_c
from meshd._fast.inbound cimport (
    inbound_begin_c,
    inbound_close_c,
    inbound_deliver_c,
    inbound_flush_c,
    inbound_open_c,
    inbound_relayed_c,
    inbound_rest_c,
    inbound_t,
    inbound_transport_c,
)
from meshd._fast.outbound cimport (
    OUT_SENT,
    outbound_close_c,
    outbound_flush_c,
    outbound_open_c,
    outbound_rest_c,
    outbound_t,
    outbound_to_peer_c,
)
from meshd._fast.peer cimport PEER_DROPS, peer_find_c, peer_t
from meshd._fast.planestate cimport (
    COUNTERS,
    LOOP_WORKER,
    MAX_QUEUES,
    MAX_RECEIVERS,
    RECEIVER_WORKER,
    TUN_READS,
    UDP_READS,
    WORKERS,
)
from meshd._fast.registry cimport Registry, sockets_of
from meshd._fast.relayqueue cimport relay_news_c, relay_queue_t, relay_ready_c, relay_take_c
from meshd._fast.ring cimport bell_quiet_c, bell_ring_c, record_t, ring_peek_c, ring_release_c, ring_t
from meshd._fast.segment cimport VNET_BYTES, vnet_header_t
from meshd._fast.session cimport session_t
from meshd._fast.udpio cimport (
    UDP_GSO,
    UDP_TAIL,
    udp_overflows_c,
    udp_probe_c,
    udp_reader_free_c,
    udp_reader_new_c,
    udp_reader_t,
)
from meshd._fast.worker cimport receiver_run_c, sender_run_c

from meshd._fast.planestate import COUNTER_NAMES as _COUNTER_NAMES

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
EV_ROAMED = state.EV_ROAMED

cdef enum:
    OPEN_AREA = 262144          # plaintext of relayed packets between two writes
    ADOPT_TRIES = 1000          # of a millisecond: a receiver that has not taken new sockets by then is gone

PeerState = namedtuple("PeerState", (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "last_tx_data", "last_rx_data", "last_tx", "last_rx",
    "owed_since", "unanswered_since", "session_created", "current_local_index",
))


cdef inline double _seconds(const uint64_t* ns) noexcept:
    return fast_peek64(ns) / 1e9


cdef _take_family(tuple fds, uint32_t* slots, uint32_t* count):
    cdef uint32_t i
    for i in range(<uint32_t> MAX_RECEIVERS):
        fast_store32(&slots[i], <uint32_t> <int> fds[i % len(fds)] if fds else <uint32_t> -1)
    fast_store32(count, <uint32_t> len(fds))


cdef void _free_workers(outbound_t** senders, inbound_t** receivers, udp_reader_t** readers) noexcept:
    cdef uint32_t i
    for i in range(<uint32_t> MAX_QUEUES):
        if senders[i] != NULL:
            outbound_close_c(senders[i])
            free(senders[i])
            senders[i] = NULL
    for i in range(<uint32_t> MAX_RECEIVERS):
        udp_reader_free_c(readers[i])
        readers[i] = NULL
        if receivers[i] != NULL:
            inbound_close_c(receivers[i])
            free(receivers[i])
            receivers[i] = NULL


cdef class Plane(Registry):
    cdef outbound_t* senders[8]     # of the sender threads
    cdef inbound_t* receiving[8]    # of the receiver threads
    cdef udp_reader_t* readers[8]
    cdef list epolls                # of all of them
    cdef outbound_t out             # the loop thread's own contexts, opened when first needed
    cdef inbound_t inb
    cdef uint8_t* opened            # OPEN_AREA
    cdef uint32_t turn
    cdef bint no_gso, no_gro, runt_tail     # what set_offload said
    cdef list threads
    cdef uint64_t overflows         # of former sockets

    def __cinit__(self, *, tun_fds, udp4_fd, udp6_fd, uint32_t mtu=1280, bint vnet_header=True,
                  uint64_t ring_bytes=1 << 20):
        self.threads, self.epolls = [], []
        self._take_sockets(udp4_fd, udp6_fd)

    def __dealloc__(self):
        # No method of this class is there yet when the base refused what it was given.
        _free_workers(self.senders, self.receiving, self.readers)
        outbound_close_c(&self.out)
        inbound_close_c(&self.inb)
        free(self.opened)

    @property
    def event_fd(self) -> int:
        return self.c.bell.fd

    # -- threads

    def start(self) -> None:
        cdef uint32_t i
        if self.threads:
            raise RuntimeError("the plane is running")
        try:
            self._open_workers()
            fast_store32(&self.c.stopping, 0)
            fast_store32(&self.c.hurry, 0)
            for i in range(<uint32_t> self.c.tun_count):
                self._thread(f"meshd-send-{i}", self._send_loop, (i,))
            for i in range(self.c.receivers):
                self._thread(f"meshd-receive-{i}", self._receive_loop, (i,))
        except BaseException:
            self.stop()         # all of them or none
            raise

    def stop(self) -> None:
        cdef uint32_t i
        threads, self.threads = self.threads, []
        if threads:
            fast_store32(&self.c.stopping, 1)
            fast_store32(&self.c.hurry, 1)
            os.eventfd_write(self.c.stop_fd, 1)
            for thread in threads:
                thread.join()
            os.eventfd_read(self.c.stop_fd)
            for i in range(<uint32_t> MAX_RECEIVERS):
                self.c.receiving[i] = 0
            self._reclaim()
        _free_workers(self.senders, self.receiving, self.readers)
        epolls, self.epolls = self.epolls, []
        for epoll in epolls:
            epoll.close()

    def _thread(self, name, target, args):
        # Daemon threads: a program that forgets stop() can still end.
        thread = threading.Thread(target=target, name=name, args=args, daemon=True)
        thread.start()
        self.threads.append(thread)

    cdef int _open_workers(self) except -1:
        """What the threads need, before there is one: none of them can fail then. Senders' contexts are lent, too."""
        cdef uint32_t i
        for i in range(<uint32_t> self.c.tun_count):
            self.senders[i] = <outbound_t*> calloc(1, sizeof(outbound_t))
            if self.senders[i] == NULL or not outbound_open_c(self.senders[i], self.c, i, 1):
                raise MemoryError
            self.c.tuns[i].lent = NULL
        for i in range(self.c.receivers):
            self.receiving[i] = <inbound_t*> calloc(1, sizeof(inbound_t))
            self.readers[i] = udp_reader_new_c()
            if (self.receiving[i] == NULL or self.readers[i] == NULL
                    or not inbound_open_c(self.receiving[i], self.c, RECEIVER_WORKER + i)):
                raise MemoryError
        self.epolls = [select.epoll() for _ in range(<uint32_t> self.c.tun_count + self.c.receivers)]
        return 0

    def _send_loop(self, uint32_t queue):
        cdef int epoll = self.epolls[queue].fileno()
        with nogil:
            sender_run_c(self.senders[queue], queue, epoll)

    def _receive_loop(self, uint32_t which):
        cdef int epoll = self.epolls[self.c.tun_count + which].fileno()
        with nogil:
            receiver_run_c(self.receiving[which], self.readers[which], epoll)

    # -- sockets

    cdef _take_sockets(self, udp4_fd, udp6_fd):
        cdef tuple fds4 = sockets_of(udp4_fd), fds6 = sockets_of(udp6_fd)
        if max(len(fds4), len(fds6)) > self.c.receivers:
            raise ValueError("more sockets than receivers")
        _take_family(fds4, self.c.udp4, &self.c.udp4_count)
        _take_family(fds6, self.c.udp6, &self.c.udp6_count)
        self._offload()
        fast_store32(&self.c.udp_changes, self.c.udp_changes + 1)

    def set_udp(self, udp4_fd, udp6_fd) -> None:
        cdef uint32_t change, i
        cdef uint64_t before = self._overflows()
        self._take_sockets(udp4_fd, udp6_fd)
        self.overflows += before - self._overflows()    # one that stays tells of itself
        if not self.threads:
            return
        change = self.c.udp_changes
        for i in range(self.c.receivers):
            os.eventfd_write(self.c.wake_fds[i], 1)
        fast_store32(&self.c.hurry, 1)
        with nogil:
            self._await_sockets(change)
        fast_store32(&self.c.hurry, 0)

    cdef void _await_sockets(self, uint32_t change) noexcept nogil:
        """The caller may close the old sockets afterwards: nobody uses them any more."""
        cdef uint32_t _try, i = 0
        epoch_wait_c(&self.c.epoch)
        for _try in range(<uint32_t> ADOPT_TRIES):
            while i < self.c.receivers and fast_load32(&self.c.udp_adopted[i]) == change:
                i += 1
            if i == self.c.receivers:
                return
            usleep(1000)

    cdef uint64_t _overflows(self):
        cdef uint32_t i
        cdef uint64_t total = 0
        for i in range(self.c.udp4_count):
            total += udp_overflows_c(<int> self.c.udp4[i])
        for i in range(self.c.udp6_count):
            total += udp_overflows_c(<int> self.c.udp6[i])
        return total

    def set_offload(self, *, bint udp_gso=True, bint udp_gro=True, bint equal_tail=True, bint tun_tcp_gro=True,
                    bint tun_udp_gro=True) -> None:
        self.no_gso, self.no_gro, self.runt_tail = not udp_gso, not udp_gro, not equal_tail
        self._offload()
        fast_store32(&self.c.gro_features, (GRO_TCP if tun_tcp_gro else 0) | (GRO_UDP if tun_udp_gro else 0))

    cdef void _offload(self):
        """What the sockets can do, as far as it is wanted."""
        fast_store32(&self.c.udp_mode4, self._probe(self.c.udp4, self.c.udp4_count))
        fast_store32(&self.c.udp_mode6, self._probe(self.c.udp6, self.c.udp6_count))

    cdef uint32_t _probe(self, const uint32_t* slots, uint32_t count):
        cdef uint32_t i, can = UDP_GSO if count else 0
        for i in range(count):
            can &= <uint32_t> udp_probe_c(<int> slots[i], not self.no_gro)
        return (0 if self.no_gso else can) | (UDP_TAIL if self.runt_tail else 0)

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
        outbound_rest_c(out)
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
        outbound_rest_c(out)
        return sent

    def send_packet(self, int peer, bytes packet not None) -> bool:
        cdef outbound_t* out = self._outbound()
        cdef vnet_header_t vnet
        cdef int result
        self._peer(peer)
        if not 0 < len(packet) <= 65535:
            raise ValueError("packet length")
        masquerade = self.masquerades.get(peer)
        if masquerade is not None:
            packet = masquerade.outbound(packet)
        memset(&vnet, 0, sizeof(vnet))
        result = outbound_to_peer_c(out, peer, &vnet, <const uint8_t*> <char*> packet, <uint32_t> len(packet))
        outbound_flush_c(out)
        outbound_rest_c(out)
        return result == OUT_SENT

    def deliver(self, bytes packet not None) -> bool:
        cdef inbound_t* inb = self._inbound()
        if not 20 <= len(packet) <= 65535:
            raise ValueError("packet length")
        if not inbound_deliver_c(inb, <const uint8_t*> <char*> packet, <uint32_t> len(packet)):
            return False
        inbound_flush_c(inb)
        inbound_rest_c(inb)
        return True

    cdef int _open_area(self) except -1:
        if self.opened == NULL:
            self.opened = <uint8_t*> malloc(OPEN_AREA)
            if self.opened == NULL:
                raise MemoryError
        return 0

    def open_from(self, list packets not None) -> list:
        cdef inbound_t* inb = self._inbound()
        cdef uint32_t used = 0, n
        cdef bytes packet
        cdef list rest = []
        self._open_area()
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
        inbound_rest_c(inb)
        return rest

    def open_relayed(self, RelayedPackets packets not None) -> None:
        cdef inbound_t* inb = self._inbound()
        cdef const uint8_t* data = <const uint8_t*> <char*> packets.data
        self._open_area()
        with nogil:
            self._open_runs(inb, packets.runs, packets.count, data)

    cdef void _open_runs(self, inbound_t* inb, const relayed_run_t* runs, uint32_t count,
                         const uint8_t* data) noexcept nogil:
        cdef uint32_t i, used = 0
        for i in range(count):
            if used + runs[i].bytes > OPEN_AREA:
                inbound_flush_c(inb)
                used = 0
            inbound_relayed_c(inb, data + runs[i].offset, runs[i].bytes, runs[i].segment, self.opened + used)
            used += runs[i].bytes
        inbound_flush_c(inb)
        inbound_rest_c(inb)

    def take_relayed(self, int relay, int limit=0) -> bytes:
        cdef relay_queue_t* queue = self._relay(relay)
        # Room first: packet threads must not wait for memory, nor for ever when there is none.
        cdef uint32_t n = relay_ready_c(queue, <uint32_t> limit if limit > 0 else <uint32_t> 0xffffffff)
        cdef bytes frames = PyBytes_FromStringAndSize(NULL, n)
        if relay_take_c(queue, <uint8_t*> <char*> frames, n, limit > 0 and n > 0):
            bell_ring_c(&self.c.bell)
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

    def peer_drops(self, int peer) -> dict:
        cdef peer_t* slot = self._peer(peer)
        cdef uint32_t i
        cdef dict counts = {}
        for i in range(min(<uint32_t> COUNTERS, <uint32_t> PEER_DROPS)):
            if fast_peek64(&slot.drops[i]):
                counts[_COUNTER_NAMES[i]] = fast_peek64(&slot.drops[i])
        return counts

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
            counts[_COUNTER_NAMES[i]] = total
        for w in range(<uint32_t> WORKERS):
            if self.c.workers[w].ring != NULL:
                lost += fast_peek64(&self.c.workers[w].ring.dropped)
        counts["events_lost"] = lost
        counts["in_socket_overflow"] = self.overflows + self._overflows()
        return counts

    def thread_reads(self) -> dict:
        cdef uint32_t i
        cdef dict reads = {}
        for i in range(<uint32_t> self.c.tun_count):
            reads[f"reads_send_{i}"] = fast_peek64(&self.c.workers[i].counts[<int> TUN_READS])
        for i in range(self.c.receivers):
            reads[f"reads_receive_{i}"] = fast_peek64(&self.c.workers[RECEIVER_WORKER + i].counts[<int> UDP_READS])
        return reads

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
        if kind == state.EV_ROAMED:
            address = PyBytes_FromStringAndSize(<const char*> record.address, record.address_bytes)
            return kind, record.subject, address, record.port
        return kind, record.subject, data
