"""How soon a node that starts with nothing but its peer reachable has packets on the wire, and what it costs to wait.

    python -m perf.coldboot [--rounds N] [--idle SECONDS] [--silent]

Two nodes join, then the coordination server with its relay ends for good. A program sends packets to node b all the
time while node a is stopped and started again: printed are the times from just before exec to a's first WireGuard
message to b's last address and to the first packet with data, and a's processor time and log afterwards, offline and at
rest. The host of the server refuses connections; with --silent nothing answers there at all.

Needs root and what perf.path needs.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from perf.path.hosts import PREFIX, Hosts, hosts, only_run, program, sh, wait_for
from perf.path.peers import DAEMONS, mesh_nodes

PORT = 41641
KEEPALIVE_BYTES = 32
SETTLE_S = 3.0


def send(target: str) -> None:
    """Packets to an address in the tunnel until killed, whether there is a way or not."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        with contextlib.suppress(OSError):
            sock.sendto(b"x" * 64, (target, 9))
        time.sleep(0.002)


def watch() -> None:
    """Print when WireGuard messages leave eth0: their type and the monotonic time."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    print("ready", flush=True)
    seen: set[int] = set()
    while len(seen) < 2:
        packet, (_, _, kind, *_) = sock.recvfrom(2048)
        now = time.monotonic()
        if kind != socket.PACKET_OUTGOING or len(packet) < 29 or packet[0] >> 4 != 4 or packet[9] != 17:
            continue
        start = (packet[0] & 15) * 4
        source, body = int.from_bytes(packet[start : start + 2], "big"), packet[start + 8 :]
        if source != PORT or body[:1] not in (b"\1", b"\4") or body[1:4] != bytes(3):
            continue
        if body[0] not in seen and (body[0] == 1 or len(body) > KEEPALIVE_BYTES):
            seen.add(body[0])
            print(body[0], now, flush=True)


@contextlib.contextmanager
def helper(code: str) -> Iterator[subprocess.Popen[str]]:
    """A function of this module in the namespace of node a."""
    started = subprocess.Popen(
        ["ip", "netns", "exec", f"{PREFIX}-a", sys.executable, "-c", f"from perf import coldboot; coldboot.{code}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


def measure(made: Hosts, rounds: int, idle_s: float, *, silent: bool) -> dict[str, list[float]]:
    kind = DAEMONS[0]
    pair = mesh_nodes(made, kind, "mesh-coord", relayed=False)
    directory = made.directory / "a"
    wait_for(lambda: list(directory.glob("profile-data/*/netmap-cache/netmap")), 20, "the netmap on disk")
    pair.a.stop()
    for started in made.programs:
        if started is not pair.b:
            started.stop()
    if silent:
        rules = "table inet mperf { chain in { type filter hook input priority -300; drop; }; }"
        sh("ip", "netns", "exec", f"{PREFIX}-c", "nft", "-f", "-", text=rules)
    command = [program(kind.daemon), f"--statedir={directory}", f"--socket={directory}/sock", "--tun=mesh0",
               f"--state={directory}/state.json", f"--port={PORT}"]  # fmt: skip
    found: dict[str, list[float]] = {"handshake": [], "data": [], "cpu until": [], "cpu": [], "pss": [], "log": []}
    for turn in range(rounds):
        with helper(f"send({pair.target!r})"), helper("watch()") as watcher:
            assert watcher.stdout is not None
            watcher.stdout.readline()
            begun = time.monotonic()
            node = made.start("a", "again.log", command)
            times = dict(watcher.stdout.readline().split() for _ in range(2))
            found["cpu until"].append(node.cpu_s())
        found["handshake"].append(float(times["1"]) - begun)
        found["data"].append(float(times["4"]) - begun)
        if turn == 0:
            time.sleep(SETTLE_S)
            before, since, written = node.cpu_s(), time.monotonic(), node.log.stat().st_size
            time.sleep(idle_s)
            found["cpu"].append((node.cpu_s() - before) / (time.monotonic() - since))
            found["pss"].append(node.pss_mb())
            found["log"].append(node.log.stat().st_size - written)
        node.stop()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.coldboot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds over which the waiting node is measured")
    parser.add_argument("--silent", action="store_true", help="the server's host answers nothing, not even refusals")
    arguments = parser.parse_args()
    with only_run("perf.coldboot", *(["nft"] if arguments.silent else [])), hosts() as made:
        try:
            found = measure(made, arguments.rounds, arguments.idle, silent=arguments.silent)
        except (RuntimeError, ValueError) as error:
            print(f"perf.coldboot: {error}\n{made.last_words()}", file=sys.stderr)
            return 1
    for name, label in (("handshake", "first WireGuard message"), ("data", "first packet with data")):
        times = [1e3 * one for one in found[name]]
        print(
            f"exec to {label:24} {statistics.median(times):6.0f} ms (median of {len(times)}), {max(times):.0f} at most"
        )
    print(f"processor time until then       {1e3 * statistics.median(found['cpu until']):6.0f} ms")
    print(f"processor time while offline    {100 * found['cpu'][0]:6.2f} %, memory {found['pss'][0]} MB PSS")
    print(f"log while offline               {found['log'][0]:6.0f} bytes in {arguments.idle:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
