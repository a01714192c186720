"""Two data planes with real TUN devices in two namespaces, fixed keys, and real programs through them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from perf.path.plane_pair import INNER, INNER6, SPACES, ends, iperf, network, sh

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def tunnel() -> Iterator[list[subprocess.Popen[str]]]:
    with network(), ends(None) as programs:
        yield programs


def ping(*options: str) -> str:
    return sh(f"ip netns exec {SPACES[0]} ping {' '.join(options)} {INNER[1]}", check=False)


def test_ping_crosses_the_tunnel(tunnel) -> None:
    assert " 0% packet loss" in ping("-c", "20", "-i", "0.01")


def test_ping_over_ipv6_crosses_the_tunnel(tunnel) -> None:
    answer = sh(f"ip netns exec {SPACES[0]} ping -6 -c 5 -i 0.01 {INNER6[1]}", check=False)
    assert " 0% packet loss" in answer


def test_ping_larger_than_the_mtu_is_fragmented_by_the_host(tunnel) -> None:
    assert " 0% packet loss" in ping("-c", "5", "-i", "0.01", "-s", "8000")


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not on PATH")
@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4", "--bidir")])
def test_tcp_streams_arrive_whole(tunnel, options: tuple[str, ...]) -> None:
    result = iperf(tunnel, 1, *options)
    assert result["gbit_s"] > 0


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not on PATH")
@pytest.mark.parametrize("size", [64, 1200, 1252, 4000])
def test_udp_datagrams_arrive(tunnel, size: int) -> None:
    """At a rate that iperf3 can take out of its socket on a busy machine, too."""
    result = iperf(tunnel, 1, "-u", "-b", str(2000 * size * 8), "-l", str(size))
    assert result["lost_percent"] < 5


@pytest.mark.parametrize("address", [INNER[1], INNER6[1]])
def test_transfer_is_intact(tunnel, address: str) -> None:
    """Every byte, with segmentation and merging on both ends."""
    size = 30_000_000
    receiver = subprocess.Popen(
        ["ip", "netns", "exec", SPACES[1], "python3", "-c", RECEIVE, address], stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    assert receiver.stdout.readline().strip() == "ready"
    sent = sh(f"ip netns exec {SPACES[0]} python3 -c '{SEND}' {address} {size}").strip()
    got = json.loads(receiver.stdout.readline())
    receiver.wait(10)
    assert got == {"size": size, "digest": sent}


@pytest.mark.parametrize("address", [INNER[1], INNER6[1]])
def test_segmented_datagrams_arrive_in_order(tunnel, address: str) -> None:
    """A program that lets the kernel segment its UDP (UDP_SEGMENT), as QUIC servers do."""
    receiver = subprocess.Popen(
        ["ip", "netns", "exec", SPACES[1], "python3", "-c", RECEIVE_DATAGRAMS, address],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert receiver.stdout is not None
    assert receiver.stdout.readline().strip() == "ready"
    sh(f"ip netns exec {SPACES[0]} python3 -c '{SEND_DATAGRAMS}' {address}")
    got = json.loads(receiver.stdout.readline())
    receiver.wait(10)
    assert got == [[i % 256, 1000 if i % 20 < 19 else 300] for i in range(100)]


RECEIVE = """
import hashlib, json, socket, sys
server = socket.create_server((sys.argv[1], 7000), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
peer, _ = server.accept()
digest, size = hashlib.sha256(), 0
while data := peer.recv(1 << 20):
    digest.update(data)
    size += len(data)
print(json.dumps({"size": size, "digest": digest.hexdigest()}), flush=True)
"""

SEND = """
import hashlib, random, socket, sys
size, digest, left = int(sys.argv[2]), hashlib.sha256(), random.Random(1)
with socket.create_connection((sys.argv[1], 7000)) as peer:
    while size:
        data = left.randbytes(min(size, left.randrange(1, 200000)))
        peer.sendall(data)
        digest.update(data)
        size -= len(data)
print(digest.hexdigest())
"""

RECEIVE_DATAGRAMS = """
import json, socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 7001))
sock.settimeout(5)
print("ready", flush=True)
print(json.dumps([[data[0], len(data)] for data in (sock.recv(2000) for _ in range(100))]), flush=True)
"""

SEND_DATAGRAMS = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(17, 103, 1000)
sock.connect((sys.argv[1], 7001))
for burst in range(5):
    sizes = [1000] * 19 + [300]
    sock.send(b"".join(bytes([(burst * 20 + i) % 256]) * size for i, size in enumerate(sizes)))
"""
