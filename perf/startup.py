"""How soon a node that has its keys is Running again: from just before exec to the state on the LocalAPI's bus.

    python -m perf.startup [--rounds N]

The coordination server with its relay is mesh-coord on the same host, at 127.0.0.1, so no time is the network's.
meshd is measured with and without its cached network map, beside tailscaled where that is on PATH.

Needs root and what perf.path needs.
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from perf.path.hosts import Hosts, hosts, on, only_run, program, wait_for
from perf.path.peers import Daemon, daemons

URL = "http://127.0.0.1:8080"
GOAL_S = 0.7
PATIENCE_S = 30.0
_RUNNING = b'"State":6'
_WATCH = b"GET /localapi/v0/watch-ipn-bus?mask=2 HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n"
_QUIET = {"TS_NO_LOGS_NO_SUPPORT": "true", "TS_DEBUG_FIREWALL_MODE": "nftables"}


@dataclass(frozen=True)
class Case:
    """A daemon and what it is told."""

    name: str
    kind: Daemon
    environment: dict[str, str]


def cases() -> list[Case]:
    meshd, *others = daemons()
    found = [Case("meshd", meshd, {}), Case("meshd without cached map", meshd, {"MESHD_NETMAP_CACHE": "off"})]
    return found + [Case(kind.name, kind, {}) for kind in others]


def until_running(path: Path, begun: float) -> float:
    """Seconds from ``begun`` until the daemon with this socket says that it is Running."""
    deadline = begun + PATIENCE_S
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
            except OSError:
                time.sleep(0.001)
                continue
            sock.settimeout(PATIENCE_S)
            sock.sendall(_WATCH)
            heard = b""
            while _RUNNING not in heard:
                data = sock.recv(65536)
                if not data:
                    raise RuntimeError(f"the daemon closed its bus: {heard[-200:]!r}")
                heard = heard[-len(_RUNNING) :] + data
            return time.monotonic() - begun
    raise RuntimeError(f"nobody listens on {path}")


def measure(made: Hosts, case: Case, key: str, rounds: int) -> list[float]:
    directory = made.directory / re.sub(r"\W+", "-", case.name)
    directory.mkdir()
    path = directory / "sock"
    command = [program(case.kind.daemon), f"--statedir={directory}", f"--state={directory}/state.json",
               f"--socket={path}", "--tun=mesh0", "--port=41641"]  # fmt: skip
    environment = _QUIET | case.environment
    log = f"{directory.name}.log"
    node = made.start("a", log, command, environment)
    wait_for(path.exists, 20, f"the socket of {case.name}")
    on("a", program(case.kind.command), f"--socket={path}", "up", f"--login-server={URL}", f"--auth-key={key}",
       f"--hostname={directory.name}", "--accept-dns=false", "--timeout=30s")  # fmt: skip
    time.sleep(2)  # the cached map is written a moment after it came
    node.stop()
    found = []
    for _ in range(rounds):
        path.unlink(missing_ok=True)
        begun = time.monotonic()
        node = made.start("a", log, command, environment)
        found.append(until_running(path, begun))
        time.sleep(0.5)
        node.stop()
    return found


def coordinator(made: Hosts) -> str:
    """Start it on host a; a key to join with."""
    command = [program("mesh-coord"), "serve", "--state-dir", str(made.directory / "coord"), "--listen",
               URL.removeprefix("http://"), "--url", URL]  # fmt: skip
    coord = made.start("a", "coord.log", command)
    found = wait_for(lambda: re.search(r"--auth-?key=(\S+)", coord.log.read_text()), 20, "mesh-coord")
    return str(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with only_run("perf.startup"), hosts() as made:
        try:
            key = coordinator(made)
            for case in cases():
                times = [1e3 * one for one in measure(made, case, key, arguments.rounds)]
                middle = statistics.median(times)
                print(f"{case.name:26} exec to Running {middle:6.0f} ms (of {len(times)}), {max(times):.0f} at most")
        except (RuntimeError, OSError) as error:
            print(f"perf.startup: {error}\n{made.last_words()}", file=sys.stderr)
            return 1
    print(f"goal: {1e3 * GOAL_S:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
