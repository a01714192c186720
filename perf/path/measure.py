"""What is measured on a pair: throughput, processor time per gigabyte, round trips, memory."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import Any

from perf.path.hosts import PREFIX, on
from perf.path.peers import Pair


def iperf(pair: Pair, seconds: int, *options: str) -> dict[str, Any]:
    """One iperf3 run from a to b: Gbit/s and processor seconds per gigabyte on each end."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", f"{PREFIX}-b", "iperf3", "-s", "-1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.4)
    before = (pair.a.cpu_s(), pair.b.cpu_s())
    try:
        output = json.loads(on("a", "iperf3", "-c", pair.target, "-t", str(seconds), "-J", *options, check=False))
    finally:
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    after = (pair.a.cpu_s(), pair.b.cpu_s())
    if "error" in output:
        raise RuntimeError(f"iperf3 on {pair.name}: {output['error']}")
    end = output["end"]
    received = end.get("sum_received") or end["sum"]
    gigabytes = received["bytes"] / 1e9
    result: dict[str, Any] = {
        "gbit_s": round(received["bits_per_second"] / 1e9, 3),
        "cpu_s_per_gb": [round((x - y) / gigabytes, 2) for x, y in zip(after, before, strict=True)],
    }
    if "-u" in options:
        result["lost_percent"] = round(end["sum"]["lost_percent"], 2)
        result["kpps"] = round(end["sum"]["packets"] / seconds / 1000, 1)
    return result


def round_trips(pair: Pair, count: int = 500) -> dict[str, float]:
    """ICMP echo through the tunnel, milliseconds."""
    output = on("a", "ping", "-i", "0.002", "-c", str(count), "-q", pair.target, check=False)
    found = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", output)
    lost = re.search(r"([\d.]+)% packet loss", output)
    if not found or not lost:
        raise RuntimeError(f"ping on {pair.name}: {output}")
    return {"min_ms": float(found[1]), "avg_ms": float(found[2]), "max_ms": float(found[3]), "loss": float(lost[1])}


def idle(pair: Pair, seconds: float = 3.0) -> dict[str, Any]:
    """Memory and processor time of a while nobody talks."""
    before = pair.a.cpu_s()
    time.sleep(seconds)
    return {"pss_mb": pair.a.pss_mb(), "cpu_percent": round((pair.a.cpu_s() - before) / seconds * 100, 2)}
