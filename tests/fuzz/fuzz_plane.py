"""Hostile traffic for a whole data plane: through its UDP socket, its TUN, and what the event loop hands it.

The attacker is a peer. It holds the keys of a valid session, so what it sends is opened and its content met. After
every batch the books must balance: each thing that went in came out, became an event, or was counted as dropped.

    python -m tests.fuzz.campaign --executions N plane
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from meshd._fast import udpio
from meshd._fast.aead import Cipher
from meshd._fast.derpframes import BUNDLE_TYPE, MAX_PACKET, split_frames
from meshd._fast.filter import Filter
from meshd._fast.plane import EV_DATAGRAM, EV_SERVICE, EV_STAGED
from tests.fuzz.hostile import LARGEST_DATAGRAM, SERVICE, Hostile
from tests.reference.derpframes import unbundle
from tests.unit.fast.packets import A4, A6, B4, B6, ipv4
from tests.unit.fast.planepair import KEY_AB, KEY_BA, LOOPBACK, PLAIN_HEADER, Node, allow_all

BATCH = 48
BATCH_BYTES = 256 << 10  # what socket buffers hold for sure
STALL_S = 30.0
RELAY = 7
MARKER = "TS💬 batch marker, as long as a disco message: what is none does not come up to the loop at all".encode()
OUT_DROPS = ("out_malformed", "out_no_route", "out_filtered", "out_too_big", "out_staged_limit")
IN_DROPS = (
    "in_runt",
    "in_unknown",
    "in_source_limit",
    "in_truncated",
    "in_no_session",
    "in_expired",
    "in_forged",
    "in_replayed",
)
PLAIN_DROPS = ("in_malformed", "in_source", "in_filtered", "in_event_limit", "in_device_error")


class Imbalance(AssertionError):
    """Something went in and nobody knows what became of it."""


class _Patience:
    """So many seconds of running; a process that was suspended meanwhile has as many left as before."""

    def __init__(self) -> None:
        self._left, self._seen = STALL_S, time.monotonic()

    def is_over(self) -> bool:
        now = time.monotonic()
        self._left -= min(now - self._seen, 1.0)
        self._seen = now
        return self._left < 0


class PlaneFuzzer:
    """Plane "b" under attack by its peer "a", whose socket and keys are in our hands."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.hostile = Hostile(self.random)
        self.executions = 0
        self.events: Counter[int] = Counter()
        self.nonces: dict[tuple[int, int], int] = {}
        self.node = Node(ring_bytes=1 << 22)
        self.plane = self.node.plane
        self.attacker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.attacker.bind(("127.0.0.1", 0))
        self.attacker.setblocking(False)
        # Each hears the other alone: what other programs of this machine send to strange ports is not in the books.
        self.attacker.connect(("127.0.0.1", self.node.port))
        self.node.udp.connect(self.attacker.getsockname())
        for descriptor in (self.attacker.fileno(), self.node.udp.fileno()):
            udpio.set_buffers(descriptor, 7 << 20)
        self.cipher = Cipher()
        self.generation = 0
        self.counter = 0
        self.markers = 0
        self.seen_markers = 0
        self.delivered = 0
        self.received = 0
        self.lengths_hold = True
        self.peer = self.plane.add_peer(b"A" * 32)
        for address in (A4, A6):
            self.plane.add_route(self.peer, address, len(address) * 8)
        self.plane.add_route(self.plane.add_peer(b"C" * 32), b"\x0a\0\0\0", 8)
        self.plane.set_service_addresses([SERVICE])
        self.plane.watch_echo(1)
        self.session()
        self.plane.start()

    def close(self) -> None:
        self.node.close()
        self.attacker.close()

    def session(self) -> None:
        """A new session in place of the old one; the same keys, which only a test may do."""
        self.generation += 1
        self.counter = 0
        self.nonces.clear()
        self.plane.clear_sessions(self.peer)
        for slot, index in (("current", 0xB0), ("next", 0xD0)):
            self.plane.install_session(
                self.peer,
                slot=slot,
                local_index=index + 256 * self.generation,
                remote_index=index + 256 * self.generation,
                send_key=KEY_BA,
                receive_key=KEY_AB,
                created=time.monotonic() - self.random.choice((0, 119, 150, 166)),
                initiator=self.random.random() < 0.5,
            )

    # -- one batch of each kind

    def turn(self) -> None:
        """Change something about the plane now and then, and send one batch."""
        random = self.random
        match random.randrange(60):
            case 0 | 7 | 8:
                self.session()
            case 1:
                self.plane.set_jailed(self.peer, random.random() < 0.5)
            case 2:
                self.plane.set_filter(random.choice((allow_all(), Filter((), ()), Filter((), [(B4, 32), (B6, 128)]))))
                if random.random() < 0.5:
                    self.plane.set_rules([(((A4, A4),), ((B4, B4, 1, random.randrange(1, 9)),), (17,))], [(B4, 32)])
            case 3:
                self.plane.set_path(self.peer, LOOPBACK, self.attacker.getsockname()[1], 1e9, 0)
            case 4:
                self.plane.set_path(self.peer, None, 0, 0.0, RELAY)
            case 5:
                self.plane.set_path(self.peer, LOOPBACK, self.attacker.getsockname()[1], 0.0, RELAY)
            case 9 | 10:
                self.plane.set_bundles(self.peer, random.random() < 0.7)
            case 11:
                self.plane.set_masquerade(self.peer, random.choice(((), ((B4, A4), (B6, A6)), ((B4, SERVICE),))))
            case 6 if random.random() < 0.3:
                self.settle(None)
                self.plane.clear_sessions(self.peer)
        random.choice((self.from_udp, self.from_relay, self.from_tun, self.from_loop))()

    def datagrams(self) -> list[bytes]:
        random, hostile = self.random, self.hostile
        out: list[bytes] = []
        room = BATCH_BYTES
        index = random.choice((0xB0, 0xB0, 0xD0)) + 256 * self.generation
        plain = hostile.flow() if random.random() < 0.3 else [hostile.packet(inward=True) for _ in range(BATCH)]
        for packet in plain[:BATCH]:
            chance = random.random()
            self.counter += 1 if chance < 0.95 else random.choice((0, 2, 64, 8128, 9000))
            counter = self.counter if chance > 0.02 else max(0, self.counter - random.randrange(9000))
            datagram = hostile.datagram() if chance > 0.97 else hostile.sealed(packet, index, counter, KEY_AB)
            if chance < 0.02:
                datagram = hostile.damage(datagram)
            datagram = datagram[:LARGEST_DATAGRAM]
            room -= len(datagram)
            if room < 0:
                break
            out.append(datagram)
        return out

    def from_udp(self) -> None:
        batch = self.datagrams()
        before = self.balance()
        to = ("127.0.0.1", self.node.port)
        size = max(map(len, batch))
        if size and self.random.random() < 0.3:  # as one read of receive offload
            burst = b"".join(d.ljust(size, b"\0") for d in batch)[: min(LARGEST_DATAGRAM, size * 64)]
            failure, _ = udpio.send(self.attacker.fileno(), LOOPBACK, self.node.port, burst, size)
            assert not failure
            count = -(-len(burst) // size)
        else:
            count = len(batch)
            for datagram in batch:
                self.attacker.sendto(datagram, to)
        self.markers += 1
        self.settle(lambda: self.attacker.sendto(MARKER + struct.pack(">I", self.markers), to))
        self.check_inbound(before, count)

    def from_relay(self) -> None:
        batch = self.datagrams()
        before = self.balance()
        if self.random.random() < 0.5:
            rest = self.plane.open_from(batch)
            count = len(batch) - len(rest)
        else:
            transport = split_frames(self.relay_read(batch)).transport
            count = len(transport)
            self.plane.open_relayed(transport)
        self.settle(None)
        self.check_inbound(before, count)

    def relay_read(self, batch: list[bytes]) -> bytes:
        """The batch as a relay sends it, in part as bundles, whose sizes need not fit what is in them."""
        random, out = self.random, bytearray()
        while batch:
            taken, batch = batch[: random.choice((1, 1, 3, 12))], batch[12:]
            packet = b"".join(taken)
            if len(taken) > 1:
                segment = random.choice((len(taken[0]), len(taken[0]), random.randrange(1 << 16)))
                packet = bytes((BUNDLE_TYPE, 0)) + segment.to_bytes(2, "big") + packet
            packet = packet[:MAX_PACKET]
            out += b"\x05" + (32 + len(packet)).to_bytes(4, "big") + b"A" * 32 + packet
        return bytes(out)

    def from_tun(self) -> None:
        before = self.balance()
        count = 0
        for _ in range(BATCH):
            record = self.hostile.record()
            self.node.host.send(record)
            count += 1
        self.markers += 1
        marker = PLAIN_HEADER + ipv4(17, MARKER + struct.pack(">I", self.markers), B4, SERVICE)
        self.settle(lambda: self.node.host.send(marker))
        self.check_outbound(before, count)

    def from_loop(self) -> None:
        """What the loop itself hands down need not be less hostile: it may repeat what peers said."""
        hostile, plane = self.hostile, self.plane
        self.balance()
        self.lengths_hold = False  # deliver() takes the loop's word for it
        for _ in range(BATCH):
            packet = hostile.packet(inward=True)[:65535]
            if self.random.random() < 0.5:
                with contextlib.suppress(ValueError):  # no IP packet, and there are addresses to replace in it
                    plane.send_packet(self.peer, packet or b"\0")
            elif len(packet) >= 20:
                plane.deliver(packet)
        records = [r for r in (hostile.record() for _ in range(8)) if 10 < len(r) <= 10 + 65535]
        plane.send_staged(self.peer, records)
        plane.send_keepalive(self.peer)
        self.executions += BATCH + len(records) + 1
        self.settle(None)
        self.lengths_hold = True

    # -- bookkeeping

    def balance(self) -> Counter[str]:
        """Every count there is."""
        while True:
            self.settle(None)
            state = self.plane.peer_state(self.peer)
            counts: Counter[str] = Counter(self.plane.counters())
            counts["rx"], counts["tx"] = state.rx_packets, state.tx_packets
            # A thread that was about to write then is in the counts, and what it wrote has to be, too.
            if not self.take_events() + self.take_packets() + self.take_datagrams():
                break
        counts["delivered"] = self.delivered
        for kind, count in self.events.items():
            counts[f"event {kind}"] = count
        return counts

    def settle(self, mark: Any) -> None:
        """Take everything out of the plane until the marker is seen, or nothing is left."""
        patience = _Patience()
        if mark is not None:
            mark()
        again = time.monotonic() + 1.0
        while True:
            moved = self.take_events() + self.take_packets() + self.take_datagrams()
            if self.seen_markers >= self.markers:
                if not moved:
                    return
            elif not moved:
                select.select([self.plane.event_fd, self.node.host, self.attacker], [], [], 0.05)
                if time.monotonic() > again and mark is not None:  # its event found the ring full
                    mark()
                    again += 1.0
            if patience.is_over():
                raise Imbalance(f"seed {self.seed}: the plane stalls, {self.plane.counters()}")

    def take_events(self) -> int:
        events = self.plane.drain(1024)
        for event in events:
            data = event[-1]
            if event[0] in (EV_DATAGRAM, EV_SERVICE) and MARKER in data:
                self.seen_markers = max(self.seen_markers, struct.unpack(">I", data[-4:])[0])
                self.events[-event[0]] += 1
            else:
                self.events[event[0]] += 1
        for frame in self.relayed():
            for message in unbundle(frame[37:]) or [frame[37:]]:
                self.received += self.opened(message)
        return len(events)

    def relayed(self) -> list[bytes]:
        data, out = self.plane.take_relayed(RELAY), []
        while data:
            size = 5 + int.from_bytes(data[1:5], "big")
            assert (data[0], data[5:37]) == (4, b"A" * 32)
            assert len(data) >= size
            out.append(data[:size])
            data = data[size:]
        return out

    def take_packets(self) -> int:
        """What the host gets: whole packets, each within its own length."""
        count = 0
        while True:
            try:
                record = self.node.host.recv(70000)
            except BlockingIOError:
                return count
            count += 1
            flags, kind, hdr_len, gso_size, start, offset = struct.unpack("=BBHHHH", record[:10])
            packet = record[10:]
            if self.lengths_hold and len(packet) != packet_bytes(packet):
                raise Imbalance(f"seed {self.seed}: the host got more or less than one packet")
            if kind:
                assert flags == 1
                assert gso_size > 0
                assert start + offset + 2 <= hdr_len < len(packet)
                self.delivered += -(-(len(packet) - hdr_len) // gso_size)
            else:
                assert record[:10] == PLAIN_HEADER
                self.delivered += 1

    def take_datagrams(self) -> int:
        """What the peer gets."""
        count = 0
        while True:
            try:
                datagram = self.attacker.recv(70000)
            except BlockingIOError:
                return count
            count += 1
            self.received += self.opened(datagram)

    def opened(self, datagram: bytes) -> int:
        if len(datagram) < 32:
            return 0
        found = self.cipher.open_transport(datagram, KEY_BA)
        if found is None:
            raise Imbalance(f"seed {self.seed}: a datagram of ours does not open")
        # By UDP and by relay at once it is the same one; another text under its counter would give both away.
        if self.nonces.setdefault(found[:2], hash(datagram)) != hash(datagram):
            raise Imbalance(f"seed {self.seed}: counter {found[1]} was used twice")
        return 1

    def check_inbound(self, before: Counter[str], count: int) -> None:
        """Each datagram was dropped with a count, became an event, or was authentic; of these, few are left over."""
        self.executions += count

        def balanced(change: Counter[str]) -> bool:
            explained = change["rx"] + sum(change[n] for n in IN_DROPS) + change[f"event {EV_DATAGRAM}"]
            packets = sum(change[name] for name in PLAIN_DROPS) + change["delivered"]
            return count - change["events_lost"] <= explained <= count and packets <= change["rx"]

        self.expect(before, count, balanced)

    def check_outbound(self, before: Counter[str], count: int) -> None:
        """Each record was dropped with a count, became an event, or at least one datagram."""
        self.executions += count

        def balanced(change: Counter[str]) -> bool:
            events = change[f"event {EV_STAGED}"] + change[f"event {EV_SERVICE}"] + change["events_lost"]
            return count - sum(change[name] for name in OUT_DROPS) - events <= change["tx"]

        self.expect(before, count, balanced)

    def expect(self, before: Counter[str], count: int, balanced: Callable[[Counter[str]], bool]) -> None:
        """A thread books its batch when it ends, a moment after the marker came out."""
        patience = _Patience()
        while True:
            change = self.balance()
            change.subtract(before)
            if balanced(change):
                return
            if patience.is_over():
                raise Imbalance(f"seed {self.seed}: {count} went in, this came of it: {+change}")
            time.sleep(0.001)


def packet_bytes(packet: bytes) -> int:
    """Length by the IP header."""
    if packet[0] >> 4 == 4:
        return int.from_bytes(packet[2:4], "big")
    return 40 + int.from_bytes(packet[4:6], "big")


def run(executions: int, seed: int) -> PlaneFuzzer:
    """Fuzz until so many things were sent in; what is left can be asked for its counters."""
    fuzzer = PlaneFuzzer(seed)
    try:
        while fuzzer.executions < executions:
            fuzzer.turn()
    finally:
        fuzzer.close()
    return fuzzer
