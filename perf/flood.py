"""What a flood from one source costs everybody else, for meshd and each other daemon found.

    python -m perf.flood [--kpps N] [--seconds N] [--rounds N] [--only NAME,…]

Node a talks to node b while a third host sends b's WireGuard port so many datagrams: random bytes, transport packets
of no session, handshake initiations that fail the first check, and some that pass it (they know b's public key) and
so cost a key exchange or a cookie each. Beside it stands the same flood to a port of b where nobody listens: what the
sending and the kernel cost is in both, and the difference is the daemon's.

Needs root, iperf3 and what perf.path needs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from meshd.base.crypto import blake2s_mac
from meshd.base.keys import NodePublic
from meshd.core.cookie import mac1_key
from perf.path import measure, networks
from perf.path.hosts import ADDRESS, PREFIX, hosts, on, only_run, program
from perf.path.peers import BringUp, Daemon, Pair, available, chosen, daemons

PORT = 41641
NOBODY = 9
BURSTS_PER_S = 200
CROWD = 256  # different datagrams of each kind


def noise(_: bytes) -> bytes:
    return os.urandom(200)


def transport(_: bytes) -> bytes:
    return b"\x04\0\0\0" + os.urandom(1200)


def wrong_mac(_: bytes) -> bytes:
    return b"\x01\0\0\0" + os.urandom(144)


def right_mac(public: bytes) -> bytes:
    body = b"\x01\0\0\0" + os.urandom(112)
    return body + blake2s_mac(mac1_key(public), body, 16) + bytes(16)


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "random bytes": noise,
    "no session": transport,
    "wrong mac1": wrong_mac,
    "right mac1": right_mac,
}


def send(kind: str, public: bytes, port: int, kpps: float) -> None:
    """Until killed, in the namespace of the process; says when it begins."""
    crowd = [KINDS[kind](public) for _ in range(CROWD)]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    burst, turn = max(1, int(kpps * 1e3 / BURSTS_PER_S)), 0
    target = (ADDRESS["b"], port)
    due = time.monotonic()
    print("ready", flush=True)
    while True:
        for _ in range(burst):
            turn += 1
            with contextlib.suppress(ConnectionRefusedError):
                sock.sendto(crowd[turn % CROWD], target)
        due += 1 / BURSTS_PER_S
        time.sleep(max(0.0, due - time.monotonic()))


@contextlib.contextmanager
def flood(kind: str, public: bytes, port: int, kpps: float) -> Iterator[None]:
    """A sender on the third host, as long as the block lasts."""
    code = f"from perf.flood import send; send({kind!r}, {public!r}, {port}, {kpps})"
    sender = subprocess.Popen(
        ["ip", "netns", "exec", f"{PREFIX}-c", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert sender.stdout is not None
    try:
        sender.stdout.readline()
        yield
    finally:
        sender.kill()
        sender.wait()
        sender.stdout.close()


def public_key(kind: Daemon, directory: str) -> bytes:
    status = json.loads(on("b", program(kind.command), f"--socket={directory}/b/sock", "status", "--json"))
    return NodePublic.parse(status["Self"]["PublicKey"]).raw


def one(pair: Pair, seconds: int) -> dict[str, float]:
    trips = measure.round_trips(pair, 500, 0.002)
    flow = measure.iperf(pair, seconds)
    return {"gbit_s": flow["gbit_s"], "ping_ms": trips["avg_ms"], "lost": trips["loss"]}


def turn(kind: Daemon, bring_up: BringUp, seconds: int, kpps: float) -> dict[str, dict[str, float]]:
    """For each kind of flood the figures beside those of the same flood to nobody."""
    with hosts() as made:
        pair = bring_up(made)
        public = public_key(kind, str(made.directory))
        found = {"none": one(pair, seconds)}
        for name in KINDS:
            with flood(name, public, NOBODY, kpps):
                aside = one(pair, seconds)
            with flood(name, public, PORT, kpps):
                aimed = one(pair, seconds)
            found[name] = {
                "throughput": aimed["gbit_s"] / aside["gbit_s"],
                "ping": aimed["ping_ms"] / aside["ping_ms"],
                "lost": aimed["lost"],
            }
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.flood", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kpps", type=float, default=20.0, help="thousand datagrams a second")
    parser.add_argument("--seconds", type=int, default=3, help="length of each TCP run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="meshd, tailscaled")
    arguments = parser.parse_args()
    pairs = available(networks.choose("auto"), relayed=False)
    there = {kind.name: kind for kind in daemons()}
    kinds = [there[name] for name in chosen(parser, arguments.only, there)]
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {kind.name: [] for kind in kinds}
    with only_run("perf.flood", "iperf3", "ping"):
        for _ in range(arguments.rounds):
            for kind in kinds:
                try:
                    rounds[kind.name].append(turn(kind, pairs[kind.name], arguments.seconds, arguments.kpps))
                except RuntimeError as error:
                    print(f"perf.flood: {kind.name}: {error}", file=sys.stderr)
                    return 1
    print(f"{arguments.kpps:g} kpps from one source; ratios to the same flood aimed at nobody; medians")
    print(f"{'daemon':12} {'flood':14} {'throughput':>10} {'ping':>6} {'lost %':>7}")
    for daemon, turns in rounds.items():
        for name in KINDS:
            throughput, ping, lost = (
                statistics.median(each[name][figure] for each in turns) for figure in ("throughput", "ping", "lost")
            )
            print(f"{daemon:12} {name:14} {throughput:10.2f} {ping:6.2f} {lost:7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
