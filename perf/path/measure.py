"""What a user feels of a pair: throughput, packets, round trips, processor time, memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from perf.path.hosts import PREFIX, on
from perf.path.peers import Pair

LOSS_LIMIT = 1.0  # percent of datagrams
STEP = 1.07  # the highest rate is found this closely
LEAST_KPPS = 0.2  # below this, nothing is carried
PROBE_S = 1  # of each UDP rate
SIZES = (64, 512, 1200)  # bytes of UDP payload
TRIES = 3


def iperf(pair: Pair, seconds: int, *options: str) -> dict[str, Any]:
    """One iperf3 run with a as client: Gbit/s, and what each end's daemon (a, b) spent.

    RuntimeError when iperf3 failed every time; a loaded machine makes it fail now and then.
    """
    for attempt in range(TRIES):
        output, spent = _run(pair, seconds, options)
        if "error" not in output and "end" in output:
            return _figures(output, spent, seconds, "-u" in options)
        time.sleep(0.5 * (attempt + 1))
    raise RuntimeError(f"iperf3 on {pair.name}: {output.get('error', output)}")


def _run(pair: Pair, seconds: int, options: tuple[str, ...]) -> tuple[dict[str, Any], list[float]]:
    programs = [pair.a, pair.b, *([pair.relay] if pair.relay else [])]
    with _server():
        before = [one.cpu_s() for one in programs]
        words = on("a", "timeout", str(seconds + 20), "iperf3", "-c", pair.target, "-t", str(seconds), "-J",
                   "--connect-timeout", "3000", *options, check=False)  # fmt: skip
        spent = [one.cpu_s() - start for one, start in zip(programs, before, strict=True)]
    try:
        return json.loads(words), spent
    except ValueError:
        return {"error": f"no JSON: {words[:200]!r}"}, spent


@contextlib.contextmanager
def _server() -> Iterator[None]:
    server = subprocess.Popen(
        ["ip", "netns", "exec", f"{PREFIX}-b", "iperf3", "-s", "-1", "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it complains of clients that were stopped
        text=True,
    )
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if "listening" in line:
                break
        yield
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(2)
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()
        server.stdout.close()


def _figures(output: dict[str, Any], spent: list[float], seconds: int, datagrams: bool) -> dict[str, Any]:
    end = output["end"]
    received = end.get("sum_received") or end["sum"]
    gigabytes = max(received["bytes"], 1) / 1e9
    result: dict[str, Any] = {"gbit_s": round(received["bits_per_second"] / 1e9, 4)}
    if datagrams:
        total = end["sum"]
        packets = max(total["packets"] - total["lost_packets"], 1)
        if "sum_received" not in end:  # iperf3 before 3.10: the bytes are those that were sent
            gigabytes *= packets / max(total["packets"], 1)
        result["gbit_s"] = round(gigabytes * 8 / seconds, 4)
        result["lost_percent"] = round(total["lost_percent"], 2)
        result["sent_kpps"] = round(total["packets"] / seconds / 1e3, 2)
        result["kpps"] = round(packets / seconds / 1e3, 2)
        result["cpu_s_per_million"] = [round(cpu / packets * 1e6, 2) for cpu in spent]
    else:
        result["retransmits"] = end["sum_sent"].get("retransmits", 0)
    result["cpu_s_per_gb"] = [round(cpu / gigabytes, 2) for cpu in spent]
    return result


def udp_capacity(pair: Pair, size: int) -> dict[str, Any]:
    """The highest rate that arrives with at most 1 % loss, by bisection around what a flood delivers."""
    flood = iperf(pair, PROBE_S, "-u", "-l", str(size), "-b", "0")
    if flood["lost_percent"] <= LOSS_LIMIT:  # the sender is the limit, there is no higher rate
        return flood
    low, high = 0.3 * flood["kpps"], 1.1 * flood["sent_kpps"]
    best: dict[str, Any] | None = None
    while best is None and high > LEAST_KPPS:
        low = max(low, LEAST_KPPS / 2)
        while high / low > STEP:
            rate = (low * high) ** 0.5
            # Other work on the machine makes a rate fail that the pair can carry: two must agree on that.
            found = _probe(pair, size, rate) or _probe(pair, size, rate)
            if found:
                low, best = rate, found
            else:
                high = rate
        low /= 4  # nothing was carried: the floor was too high
    return best or {**flood, "kpps": 0.0, "gbit_s": 0.0}


def _probe(pair: Pair, size: int, rate_kpps: float) -> dict[str, Any] | None:
    found = iperf(pair, PROBE_S, "-u", "-l", str(size), "-b", str(int(rate_kpps * 1e3 * size * 8)))
    good = found["lost_percent"] <= LOSS_LIMIT and found["sent_kpps"] > 0.95 * rate_kpps
    return found if good else None


def round_trips(pair: Pair, count: int = 400, interval_s: float = 0.002) -> dict[str, float]:
    """ICMP echo through the tunnel, milliseconds."""
    output = on("a", "ping", "-i", str(interval_s), "-c", str(count), "-W", "2", "-q", pair.target, check=False)
    found = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", output)
    lost = re.search(r"([\d.]+)% packet loss", output)
    if not found or not lost:
        raise RuntimeError(f"ping on {pair.name}: {output}")
    return {"min_ms": float(found[1]), "avg_ms": float(found[2]), "max_ms": float(found[3]), "loss": float(lost[1])}


def loaded_round_trips(pair: Pair, seconds: int) -> dict[str, float]:
    """The same while one TCP flow takes all there is."""
    with _server():
        load = subprocess.Popen(
            ["ip", "netns", "exec", f"{PREFIX}-a", "iperf3", "-c", pair.target, "-t", str(seconds + 1)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            return round_trips(pair, seconds * 100, 0.01)
        finally:
            load.terminate()
            load.wait()


def idle(pair: Pair, seconds: float) -> dict[str, Any]:
    """Memory and processor time of a while nobody talks."""
    before = pair.a.cpu_s()
    time.sleep(seconds)
    return {"pss_mb": memory(pair), "cpu_percent": round((pair.a.cpu_s() - before) / seconds * 100, 2)}


def memory(pair: Pair) -> list[float]:
    """PSS of a and b, MB."""
    return [pair.a.pss_mb(), pair.b.pss_mb()]


def everything(pair: Pair, seconds: int, *, quick: bool) -> dict[str, Any]:
    """One turn of a pair. ``quick`` leaves out what takes long: reverse, datagrams, pings under load."""
    result: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    result["idle"] = idle(pair, 2.0)
    result["ping"] = round_trips(pair)
    result["tcp1"] = iperf(pair, seconds)
    result["tcp8"] = iperf(pair, seconds, "-P", "8")
    if not quick:
        result["reverse"] = iperf(pair, seconds, "-R")
        result["ping_loaded"] = loaded_round_trips(pair, max(2, seconds // 2))
        for size in SIZES:
            result[f"udp{size}"] = udp_capacity(pair, size)
    result["loaded_pss_mb"] = memory(pair)
    if pair.relay is not None:
        result["relay"] = pair.relay_name
    return result
