"""The data plane alone: two namespaces, a veth between them, a plane with fixed keys in each, iperf3 through.

    python -m perf.path.plane_pair [--seconds N] [--rounds N] [--limit PROGRAM] [--udp] [--json]

--limit names a calibration tunnel, called as PROGRAM IFNAME PORT PEERIP PEERPORT openssl, which takes turns
with the plane. Needs root and iperf3.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshd._fast.filter import Filter
from meshd._fast.plane import Plane
from meshd._fast.udpio import set_buffers
from meshd.io.tun import open_tun

PORT = 5000
ROOT = Path(__file__).parents[2]
SPACES = ("fb-a", "fb-b")
OUTER = ("10.97.0.1", "10.97.0.2")
INNER = ("100.64.7.1", "100.64.7.2")
INNER6 = ("fd7a:115c:a1e0::71", "fd7a:115c:a1e0::72")
KEYS = (bytes(range(32)), bytes(range(50, 82)))
EVERYBODY = (bytes(4), b"\xff" * 4)
EVERYBODY6 = (bytes(16), b"\xff" * 16)
ALLOW_ALL = Filter(
    [([one], [(*one, 0, 65535)], [1, 6, 17, 58]) for one in (EVERYBODY, EVERYBODY6)], [(bytes(4), 0), (bytes(16), 0)]
)


def sh(command: str, *, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout


def node(side: int) -> None:
    """One end: runs until SIGTERM, then prints its counters."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    set_buffers(sock.fileno(), 7 << 20)
    sock.bind((OUTER[side], PORT))
    tun = open_tun(f"plane{side}")
    plane = Plane(tun_fds=tun.fds, udp4_fd=sock.fileno(), udp6_fd=-1, vnet_header=tun.vnet_header)
    plane.set_filter(ALLOW_ALL)
    peer = plane.add_peer(bytes([side]) * 32)
    plane.add_route(peer, socket.inet_aton(INNER[1 - side]), 32)
    plane.add_route(peer, socket.inet_pton(socket.AF_INET6, INNER6[1 - side]), 128)
    plane.set_path(peer, socket.inet_aton(OUTER[1 - side]), PORT, 1e8, 0)
    plane.install_session(
        peer,
        slot="current",
        local_index=1000 + side,
        remote_index=1001 - side,
        send_key=KEYS[side],
        receive_key=KEYS[1 - side],
        created=time.monotonic() + 1e6,  # never too old
        initiator=side == 0,
    )
    plane.start()
    signal.sigwait({signal.SIGTERM})
    plane.stop()
    print(json.dumps({name: count for name, count in plane.counters().items() if count}), flush=True)
    tun.close()


@contextmanager
def network() -> Iterator[None]:
    try:
        for name in SPACES:
            sh(f"ip netns add {name}")
        sh(f"ip link add veth0 netns {SPACES[0]} type veth peer name veth0 netns {SPACES[1]}")
        for name, address in zip(SPACES, OUTER, strict=True):
            sh(f"ip -n {name} link set lo up && ip -n {name} addr add {address}/24 dev veth0")
            sh(f"ip -n {name} link set veth0 up")
        yield
    finally:
        for name in SPACES:
            sh(f"ip netns del {name}", check=False)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else 0.0


@contextmanager
def ends(limit: str | None) -> Iterator[list[subprocess.Popen[str]]]:
    """Both ends up, their interfaces configured."""
    device = "lim" if limit else "plane"
    programs: list[subprocess.Popen[str]] = []
    try:
        for side, name in enumerate(SPACES):
            if limit:
                command = [limit, f"{device}{side}", str(PORT), OUTER[1 - side], str(PORT), "openssl"]
            else:
                command = [sys.executable, "-m", "perf.path.plane_pair", "--node", str(side)]
            programs.append(
                subprocess.Popen(["ip", "netns", "exec", name, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT)
            )
        for side, name in enumerate(SPACES):
            deadline = time.monotonic() + 10
            while not sh(f"ip -n {name} link show {device}{side}", check=False):
                if time.monotonic() > deadline:
                    raise RuntimeError("no interface appeared")
                time.sleep(0.05)
            sh(f"ip -n {name} addr add {INNER[side]}/24 dev {device}{side}")
            sh(f"ip -n {name} addr add {INNER6[side]}/64 dev {device}{side} nodad")
            sh(f"ip -n {name} link set {device}{side} mtu 1280 up")
        time.sleep(0.3)
        yield programs
    finally:
        for program in programs:
            program.terminate()
        for program in programs:
            if program.returncode is not None:
                continue
            output, _ = program.communicate(timeout=10)
            if output and "-v" in sys.argv:
                print(output.strip(), file=sys.stderr)


def iperf(programs: list[subprocess.Popen[str]], seconds: int, *options: str) -> dict[str, Any]:
    server = subprocess.Popen(["ip", "netns", "exec", SPACES[1], "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        before = [cpu_s(program.pid) for program in programs]
        output = json.loads(
            sh(f"ip netns exec {SPACES[0]} iperf3 -c {INNER[1]} -J -t {seconds} {' '.join(options)}", check=False)
        )
        after = [cpu_s(program.pid) for program in programs]
    finally:
        server.terminate()
        server.wait()
    if "error" in output:
        raise RuntimeError(output["error"])
    end = output["end"]
    received = end.get("sum_received") or end["sum"]
    gigabytes = received["bytes"] / 1e9
    result = {
        "gbit_s": round(received["bits_per_second"] / 1e9, 3),
        "cpu_s_per_gb": [round((y - x) / gigabytes, 2) for x, y in zip(before, after, strict=True)],
    }
    if "-u" in options:
        result["lost_percent"] = round(end["sum"]["lost_percent"], 2)
        result["kpps"] = round(end["sum"]["packets"] / seconds / 1000, 1)
    else:
        result["retransmits"] = end["sum_sent"].get("retransmits", 0)
    return result


def measure(limit: str | None, seconds: int, udp: bool) -> dict[str, Any]:
    with network(), ends(limit) as programs:
        result: dict[str, Any] = {"idle_pss_mb": pss_mb(programs[0].pid)}
        result["tcp1"] = iperf(programs, seconds)
        result["tcp8"] = iperf(programs, seconds, "-P", "8")
        if udp:
            result["udp1200"] = iperf(programs, seconds, "-u", "-b", "500M", "-l", "1200")
            result["udp64"] = iperf(programs, seconds, "-u", "-b", "30M", "-l", "64")
        ping = sh(f"ip netns exec {SPACES[0]} ping -i 0.002 -c 300 -q {INNER[1]}", check=False)
        found = re.search(r"= [\d.]+/([\d.]+)/", ping)
        result["ping_avg_ms"] = float(found[1]) if found else None
        result["loaded_pss_mb"] = pss_mb(programs[0].pid)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit")
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-v", action="store_true", help="print the counters of both ends")
    parser.add_argument("--node", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.node is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        node(args.node)
        return
    contenders: dict[str, str | None] = {"plane": None}
    if args.limit:
        contenders["limit"] = args.limit
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, limit in contenders.items():
            results[name].append(measure(limit, args.seconds, args.udp))
            print(name, results[name][-1], file=sys.stderr)
    if args.json:
        print(json.dumps(results))
        return
    for test in ("tcp1", "tcp8"):
        medians = {name: statistics.median(r[test]["gbit_s"] for r in rounds) for name, rounds in results.items()}
        ratio = f"  ratio {medians['plane'] / medians['limit']:.2f}" if args.limit else ""
        print(test, medians, ratio)


if __name__ == "__main__":
    main()
