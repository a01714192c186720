"""Looking for keys in the memory of another process: the scanner, and the process that handles the keys."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from array import array
from collections.abc import Iterator

KEY_BYTES = 32


def touched(pid: int) -> Iterator[tuple[int, int]]:
    """(start, end) of memory in use that a process may have written to."""
    page = os.sysconf("SC_PAGESIZE")
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in maps:
            span, rights, *_ = line.split(maxsplit=2)
            if not rights.startswith("rw"):
                continue
            start, end = (int(at, 16) for at in span.split("-"))
            entries = array("Q", os.pread(pagemap.fileno(), (end - start) // page * 8, start // page * 8))
            first = None
            for number, entry in enumerate((*entries, 0)):
                if entry >> 62:  # present or swapped
                    first = number if first is None else first
                elif first is not None:
                    yield start + first * page, start + number * page
                    first = None


def places_of(pid: int, keys: list[bytes]) -> list[str]:
    """Where halves of the keys stand in the memory of a process."""
    parts = [key[at : at + 16] for key in keys for at in (0, 16)]
    places = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in touched(pid):
            data = os.pread(memory.fileno(), end - start, start)
            assert len(data) == end - start
            for part in parts:
                at = data.find(part)
                while at >= 0:
                    places.append(f"{start + at:#x}")
                    at = data.find(part, at + 1)
    return places


# -- the process that has the keys


def wipe(value: bytes | bytearray) -> None:
    """Overwrite an object of this process; nobody else may hold it."""
    if isinstance(value, bytearray):
        value[:] = bytes(len(value))
    else:
        ctypes.memset(id(value) + bytes.__basicsize__ - 1, 0, len(value))


def take_keys(count: int) -> list[bytes]:
    """From standard input, with no copy of them left anywhere else in this process."""
    area = bytearray(KEY_BYTES)
    keys = []
    for _ in range(count):
        assert os.readv(0, [area]) == KEY_BYTES
        keys.append(bytes(area))
    wipe(area)
    return keys


def tell(word: str) -> None:
    """Tell the scanner how far we are, and wait until it has looked."""
    os.write(1, word.encode() + b"\n")
    assert os.read(0, 1) == b"\n"


def serve(way: str) -> None:
    """Two planes with a session of the given keys and traffic of all kinds, which then ends in one of several ways."""
    from tests.unit.fast import offload
    from tests.unit.fast.packets import A4, B4, icmp, ipv4
    from tests.unit.fast.planepair import PLAIN_HEADER, Node, Pair, reuseport_sockets

    nodes = Pair(Node(receivers=2, queues=2), Node(receivers=2, queues=2))
    a, b = nodes.a.plane, nodes.b.plane
    old = take_keys(2)

    def install(index: int, keys: list[bytes]) -> None:
        for plane, peer, own, other, order in (
            (a, nodes.peer_of_a, 0xA0, 0xB0, keys),
            (b, nodes.peer_of_b, 0xB0, 0xA0, keys[::-1]),
        ):
            plane.install_session(
                peer, slot="current", local_index=own + index, remote_index=other + index, send_key=order[0],
                receive_key=order[1], created=time.monotonic(), initiator=plane is a,
            )  # fmt: skip

    def exchange() -> None:
        """Every thread and the loop seal and open, short and long packets."""
        for payload in (b"", b"x" * 100, b"y" * 1200):
            packet = ipv4(1, icmp(0), A4, B4) if not payload else offload.udp(payload)
            for host in nodes.a.hosts:
                host.send(PLAIN_HEADER + packet)
                received(nodes.b)
            a.send_packet(nodes.peer_of_a, packet)
            received(nodes.b)
            a.set_path(nodes.peer_of_a, None, 0, 0.0, 3)
            a.send_packet(nodes.peer_of_a, packet)
            assert not b.open_from([a.take_relayed(3)[37:]])
            received(nodes.b)
            nodes.connect()
        for source in reuseport_sockets(1) * 16:  # forged, in the name of the session
            source.sendto(b"\4\0\0\0\xb0" + bytes(59), ("127.0.0.1", nodes.b.port))

    install(0, old)
    a.start()
    b.start()
    exchange()
    tell("installed")
    match way:
        case "clear":
            a.clear_sessions(nodes.peer_of_a)
            b.clear_sessions(nodes.peer_of_b)
        case "remove_session":
            a.remove_session(0xA0)
            b.remove_session(0xB0)
        case "remove_peer":
            a.remove_peer(nodes.peer_of_a)
            b.remove_peer(nodes.peer_of_b)
        case "replace":
            for index in (1, 2):
                new = [os.urandom(KEY_BYTES) for _ in range(2)]
                install(index, new)
                exchange()
        case "stop":
            for node in (nodes.a, nodes.b):
                node.plane.clear_sessions(0)
                node.close()
    for key in old:
        wipe(key)
    for _ in range(50):  # the loop's part: free what no thread holds
        a.drain()
        b.drain()
        time.sleep(0.002)
    tell("ended")


def received(node: object) -> None:
    """Wait for one packet, and keep nothing of it."""
    import select

    hosts = node.hosts  # type: ignore[attr-defined]
    ready = select.select(hosts, [], [], 5)[0]
    assert ready, "nothing came through the tunnel"
    ready[0].recv(70000)


if __name__ == "__main__":
    serve(sys.argv[1])
