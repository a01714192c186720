"""What a network of many peers costs a running daemon, from the first message to the answer of its LocalAPI.

    python -m perf.largenet [--peers 10,10000] [--only meshd,tailscaled]

Per daemon and size: CPU time from exec until the whole network is in use, memory then, time of ``status --json`` by the
daemon's own command and of the same request on its socket, and CPU time of one changed endpoint, one changed key and
one peer more or less, from the bytes on the stream on. The server is a small one at 127.0.0.1; tailscaled takes part
when it is on PATH.

Needs root and what perf.path needs.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import statistics
import sys
import time
from pathlib import Path

from perf.largenet.server import CHANGES
from perf.path.hosts import Hosts, Program, hosts, on, only_run, program, wait_for
from perf.path.peers import Daemon, chosen, daemons
from perf.scale.frames import PEERS_PER_MESSAGE, sizes

GOALS = "goals: 10 000 peers: 120 MB, 0.9 s of CPU to load, status 0.3 s, a patch 0.05 ms; 10 peers: 40 MB"
ROUNDS = 5
RELAY_PORT = 4443
SETTLE_S = 4.0
_QUIET = {"TS_NO_LOGS_NO_SUPPORT": "true", "TS_DEBUG_FIREWALL_MODE": "nftables"}
_STATUS = b"GET /localapi/v0/status HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n"


def ask_status(path: Path) -> bytes:
    """The body of the LocalAPI's answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(_STATUS)
        parts = []
        while data := sock.recv(1 << 18):
            parts.append(data)
    return b"".join(parts).partition(b"\r\n\r\n")[2]


def peers_of(path: Path) -> int:
    return len(json.loads(ask_status(path)).get("Peer") or {})


def settled_cpu(node: Program) -> float:
    """CPU seconds so far, once the daemon has come to rest."""
    before = -1.0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = node.cpu_s()
        if now - before < 0.02:
            return now
        before = now
        time.sleep(1)
    raise RuntimeError("the daemon does not come to rest")


def relay(made: Hosts) -> str:
    """Start it on host a; what its certificate goes by."""
    command = [program("mesh-relay"), f"--state-dir={made.directory / 'relay'}", f"--listen=127.0.0.1:{RELAY_PORT}",
               "--hostname=127.0.0.1", "--stun-port=-1"]  # fmt: skip
    started = made.start("a", "relay.log", command)
    found = wait_for(lambda: re.search(r"CertName (\S+)", started.log.read_text()), 20, "mesh-relay")
    return str(found[1])


def measure(made: Hosts, kind: Daemon, size: int, certificate: str) -> dict[str, float]:
    directory = made.directory / f"{kind.name}-{size}"
    directory.mkdir()
    path = directory / "sock"
    serve = [sys.executable, "-m", "perf.largenet.server", str(size), str(RELAY_PORT), certificate]
    server = made.start("a", f"server-{kind.name}-{size}.log", serve)
    url = str(wait_for(lambda: server.log.read_text().partition("\n")[0], 30, "the server"))
    command = [program(kind.daemon), f"--statedir={directory}", f"--state={directory}/state.json",
               f"--socket={path}", "--tun=mesh0", "--port=41641"]  # fmt: skip
    node = made.start("a", f"{kind.name}-{size}.log", command, _QUIET)
    try:
        wait_for(path.exists, 20, f"the socket of {kind.name}")
        on("a", program(kind.command), f"--socket={path}", "up", f"--login-server={url}", "--auth-key=x",
           "--accept-dns=false", "--timeout=60s")  # fmt: skip
        time.sleep(SETTLE_S)
        found = {"load CPU s": settled_cpu(node), "PSS MB": node.pss_mb()}
        if peers_of(path) != size:  # asked now: every answer costs a good part of what loading does
            raise RuntimeError(f"{kind.name} has {peers_of(path)} peers, not {size}")
        for name, ask in (
            ("status --json s", lambda: on("a", program(kind.command), f"--socket={path}", "status", "--json")),
            ("status request s", lambda: ask_status(path)),
        ):
            times = []
            for _ in range(ROUNDS):
                begun = time.monotonic()
                ask()
                times.append(time.monotonic() - begun)
            found[name] = statistics.median(times)
        for change, count in CHANGES.items():
            before = settled_cpu(node)
            server.popen.send_signal(signal.SIGUSR1)
            _wait_sent(server, change)
            found[f"{change} CPU ms"] = 1e3 * (settled_cpu(node) - before) / count
        found["PSS MB later"] = node.pss_mb()
        return found
    finally:
        node.stop()
        server.stop()


def _wait_sent(server: Program, change: str) -> None:
    wait_for(lambda: f"sent {change}\n" in server.log.read_text(), 60, f"messages to be sent: {change}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.largenet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=sizes, default="10,10000", help=f"up to {PEERS_PER_MESSAGE} each")
    parser.add_argument("--only", default="", help="meshd, tailscaled")
    arguments = parser.parse_args()
    if max(arguments.peers) > PEERS_PER_MESSAGE:
        parser.error(f"the server sends a network in one message, which has room for {PEERS_PER_MESSAGE} peers")
    there = {kind.name: kind for kind in daemons()}
    kinds = [there[name] for name in chosen(parser, arguments.only, there)]
    with only_run("perf.largenet"), hosts() as made:
        try:
            certificate = relay(made)
            for size in arguments.peers:
                for kind in kinds:
                    figures = measure(made, kind, size, certificate)
                    print(f"{kind.name:10} {size:6} peers  " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        except (RuntimeError, OSError) as error:
            print(f"perf.largenet: {error}\n{made.last_words()}", file=sys.stderr)
            return 1
    print(GOALS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
