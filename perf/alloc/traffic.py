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
    """One plane on loopback, a socket pair standing in for its TUN."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setblocking(False)
        self.udp.bind(("127.0.0.1", 0))
        self.host, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.host, self.tun):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.plane = Plane(tun_fds=[self.tun.fileno()], udp4_fd=self.udp.fileno(), udp6_fd=-1)
        everybody = (bytes(4), b"\xff" * 4)
        self.plane.set_filter(Filter([([everybody], [(*everybody, 0, 65535)], [1, 6, 17])], [(bytes(4), 0)]))

    def join(self, other: End) -> None:
        side = self.side
        peer = self.plane.add_peer(bytes([side + 1]) * 32)
        self.plane.add_route(peer, ADDRESSES[1 - side], 32)
        self.plane.set_path(peer, LOOPBACK, other.udp.getsockname()[1], 1e9, 0)
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
        for end in (self.udp, self.host, self.tun):
            end.close()


def carry(a: End, b: End, packets: list[bytes], rounds: int) -> int:
    """Send all packets so often and wait until their bytes came out; returns packets that came out."""
    out = 0
    for _ in range(rounds):
        for packet in packets:
            a.host.send(packet)
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
        if not select.select([end.host], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise SystemExit(f"only {seen} of {expected} bytes arrived: {end.plane.counters()}")
        seen += _payload(end.host.recv(1 << 17))
        packets += 1
    return packets


def main() -> None:
    a, b = End(0), End(1)
    a.join(b)
    b.join(a)
    header, packet = super_tcp(60000, 1228)
    load = {
        "tcp super packets": [header + packet],
        "tcp packets": [PLAIN + tcp(bytes(1228), 1000 + 1228 * n) for n in range(16)],
        "udp packets": [PLAIN + udp(bytes(64)) for _ in range(16)],
        "udp packets of many sizes": [PLAIN + udp(bytes(100 + 31 * n)) for n in range(16)],
    }
    result: dict[str, dict[str, int]] = {}
    for name, packets in load.items():
        carry(a, b, packets, WARM)
        before = _counters.meshd_requests()
        count = carry(a, b, packets, ROUNDS)
        result[name] = {"delivered": count, "requests": _counters.meshd_requests() - before}
    for end in (a, b):
        end.close()
    result["check"] = {"noticed": _noticed(), "main": _counters.meshd_main_requests()}
    json.dump(result, sys.stdout)


def _noticed() -> int:
    """Memory requests of a thread that surely makes some, so that a zero above means something."""
    before = _counters.meshd_requests()
    thread = threading.Thread(target=lambda: bytearray(1 << 20))
    thread.start()
    thread.join()
    return int(_counters.meshd_requests() - before)


if __name__ == "__main__":
    main()
