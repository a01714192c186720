"""The part that runs with ``counting.c`` preloaded: traffic between two planes, and who asked for memory meanwhile.

Prints JSON: packets carried, memory requests of the packet threads while they did, and one deliberate request.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import sys
import threading
import time

from meshd._fast.filter import Filter
from meshd._fast.plane import Plane
from perf.micro.packets import SOURCE, TARGET, super_tcp, tcp, udp

LOOPBACK = bytes([127, 0, 0, 1])
PLAIN = bytes(10)  # virtio-net header without any wish
KEYS = (bytes(range(32)), bytes(range(50, 82)))
ADDRESSES = (SOURCE, TARGET)
WARM, ROUNDS = 20, 100
PATIENCE_S = 10.0

_counters = ctypes.CDLL(None)
for _name in ("meshd_requests", "meshd_main_requests"):
    getattr(_counters, _name).restype = ctypes.c_ulong


class End:
    """One plane on loopback, socket pairs standing in for the queues of its TUN.

    With ``shared_port`` its UDP sockets, one for each queue, divide what comes to one port. Without, each has a port of
    its own, as many peers would.
    """

    def __init__(self, side: int, threads: int = 1, *, shared_port: bool = True) -> None:
        self.side = side
        self.udps: list[socket.socket] = []
        for _ in range(threads):
            udp_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp_socket.setblocking(False)
            udp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            udp_socket.bind(("127.0.0.1", self.udps[0].getsockname()[1] if self.udps and shared_port else 0))
            self.udps.append(udp_socket)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(threads)]
        self.hosts, self.tuns = [host for host, _ in pairs], [tun for _, tun in pairs]
        for end in (*self.hosts, *self.tuns):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.plane = Plane(
            tun_fds=[tun.fileno() for tun in self.tuns], udp4_fd=[sock.fileno() for sock in self.udps], udp6_fd=-1
        )
        everybody = (bytes(4), b"\xff" * 4)
        self.plane.set_filter(Filter([([everybody], [(*everybody, 0, 65535)], [1, 6, 17])], [(bytes(4), 0)]))

    def join(self, other: End) -> None:
        side = self.side
        peer = self.plane.add_peer(bytes([side + 1]) * 32)
        self.plane.add_route(peer, ADDRESSES[1 - side], 32)
        self.plane.set_path(peer, LOOPBACK, other.udps[0].getsockname()[1], 1e9, 0)
        self.plane.install_session(
            peer,
            slot="current",
            local_index=100 + side,
            remote_index=101 - side,
            send_key=KEYS[side],
            receive_key=KEYS[1 - side],
            created=time.monotonic(),
            initiator=side == 0,
        )
        self.plane.start()

    def close(self) -> None:
        self.plane.stop()
        for end in (*self.udps, *self.hosts, *self.tuns):
            end.close()


def carry(a: End, b: End, packets: list[bytes], rounds: int) -> int:
    """Send all packets so often and wait until their bytes came out; returns packets that came out."""
    out = 0
    for turn in range(rounds):
        for packet in packets:
            a.hosts[turn % len(a.hosts)].send(packet)
        out += _receive(b, sum(map(_payload, packets)))
    return out


def _payload(packet: bytes) -> int:
    """Bytes of TCP or UDP payload behind virtio-net and IP header."""
    transport = 32 if packet[10 + 9] == 6 else 8
    return len(packet) - 10 - 20 - transport


def _receive(end: End, expected: int) -> int:
    packets = seen = 0
    deadline = time.monotonic() + PATIENCE_S
    while seen < expected:
        ready = select.select(end.hosts, [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise SystemExit(f"only {seen} of {expected} bytes arrived: {end.plane.counters()}")
        for host in ready:
            seen += _payload(host.recv(1 << 17))
            packets += 1
    return packets


def main() -> None:
    header, packet = super_tcp(60000, 1228)
    load = {
        "tcp super packets": [header + packet],
        "tcp packets": [PLAIN + tcp(bytes(1228), 1000 + 1228 * n) for n in range(16)],
        "udp packets": [PLAIN + udp(bytes(64)) for _ in range(16)],
        "udp packets of many sizes": [PLAIN + udp(bytes(100 + 31 * n)) for n in range(16)],
    }
    result: dict[str, dict[str, int]] = {}
    ends = a, b = _joined(End(0), End(1))
    for name, packets in load.items():
        result[name] = _measured(a, b, packets)
    for end in ends:
        end.close()
    a, b = _several_threads(load["tcp packets"])
    for name in ("tcp packets", "udp packets"):
        result[f"{name}, several threads"] = _measured(a, b, load[name])
    for end in (a, b):
        end.close()
    result["check"] = {"noticed": _noticed(), "main": _counters.meshd_main_requests()}
    json.dump(result, sys.stdout)


def _joined(a: End, b: End) -> tuple[End, End]:
    a.join(b)
    b.join(a)
    return a, b


def _measured(a: End, b: End, packets: list[bytes]) -> dict[str, int]:
    carry(a, b, packets, WARM)
    before = _counters.meshd_requests()
    count = carry(a, b, packets, ROUNDS)
    return {"delivered": count, "requests": _counters.meshd_requests() - before}


def _several_threads(packets: list[bytes]) -> tuple[End, End]:
    """Four senders and two receivers that are all at work."""
    for _ in range(20):
        a, b = _joined(End(0, 4, shared_port=False), End(1, 2))
        carry(a, b, packets, WARM)
        if all(b.plane.thread_reads()[f"reads_receive_{i}"] for i in range(2)):
            return a, b
        a.close()
        b.close()
    raise SystemExit("the kernel gives everything to one receiver")


def _noticed() -> int:
    """Memory requests of a thread that surely makes some, so that a zero above means something."""
    before = _counters.meshd_requests()
    thread = threading.Thread(target=lambda: bytearray(1 << 20))
    thread.start()
    thread.join()
    return int(_counters.meshd_requests() - before)


if __name__ == "__main__":
    main()
