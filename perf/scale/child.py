"""One size, in a process of its own: ``python -m perf.scale.child SIZE`` reads the first frame from stdin."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from meshd.daemon.memory import set_up_memory
from meshd.feature.localapi.jsontext import status_response
from perf.scale import frames
from perf.scale.memory import plane_bytes_per_peer, pss_bytes
from perf.scale.wholenode import WholeNode

DELTAS = 200  # of each kind
BUDGET_S = 2.0  # of processor time for each kind
WARM = 3
STATUS_ROUNDS = 3
ROOM = 1000


async def apply(node: WholeNode, messages: Iterator[bytes]) -> dict[str, float]:
    """Milliseconds of this thread's processor time per message."""
    costs: list[float] = []
    for number, message in enumerate(messages):
        start = time.thread_time_ns()
        await node.feed(message)
        cost = (time.thread_time_ns() - start) / 1e6
        if number >= WARM:
            costs.append(cost)
        if len(costs) == DELTAS or (len(costs) >= WARM and sum(costs) > BUDGET_S * 1e3):
            break
    return {
        "mean_ms": round(statistics.fmean(costs), 4),
        "median_ms": round(statistics.median(costs), 4),
        "max_ms": round(max(costs), 3),
        "count": len(costs),
    }


async def status(node: WholeNode) -> dict[str, float]:
    """What ``status --json`` makes the daemon do."""
    costs = []
    size = 0
    for _ in range(STATUS_ROUNDS):
        start = time.thread_time()
        body = status_response(*node.service.status_parts()).body
        size = len(body) if isinstance(body, bytes) else sum([len(part) async for part in body])
        costs.append(time.thread_time() - start)
    return {"status_s": round(statistics.median(costs), 4), "status_mb": round(size / 1e6, 2)}


async def measure(size: int) -> dict[str, Any]:
    set_up_memory()
    node = WholeNode()
    await node.feed(frames.frame({**_greeting(), "Peers": [frames.peer(0)]}))  # code paths and modules are warm
    node.session.begin_stream()
    before = pss_bytes()
    first = sys.stdin.buffer.read()
    wall, cpu = time.monotonic(), time.process_time()
    await node.feed(first)
    result: dict[str, Any] = {
        "peers": size,
        "frame_mb": round(len(first) / 1e6, 2),
        "load_cpu_s": round(time.process_time() - cpu, 3),
        "load_s": round(time.monotonic() - wall, 3),
    }
    del first
    netmap = node.session.netmap
    assert netmap is not None
    admitted = len(netmap.peers)
    if len(node.engine.peers()) != admitted or not admitted:
        raise RuntimeError(f"{admitted} peers in the netmap, {len(node.engine.peers())} in the engine")
    result["admitted"] = admitted
    if admitted < size:
        result["refused_because"] = netmap.refusals()[0].reason
        room = range(admitted - ROOM, admitted)
        await node.feed(frames.frame({"PeersRemoved": [number + 2 for number in room]}))
        admitted -= ROOM  # so that the further ones below come in
    result["pss_mb"] = round(pss_bytes() / 1e6, 1)
    result["bytes_per_peer"] = round((pss_bytes() - before) / admitted)
    from perf.scale import decisions  # its measuring modules are not part of the node's memory

    result |= decisions.lookups(netmap) | decisions.filters(netmap, size)
    result["deltas"] = {kind: await apply(node, messages) for kind, messages in frames.deltas(admitted).items()}
    result |= await status(node)
    node.close()
    return result


def _greeting() -> dict[str, Any]:
    own = {**frames.peer(0), "ID": 1, "StableID": "n1", "Key": frames.OWN_PRIVATE.public().text()}
    addresses = [f"{frames.SELF_V4}/32", f"{frames.SELF_V6}/128"]
    return {"Node": {**own, "Addresses": addresses, "AllowedIPs": addresses}}


def main() -> None:
    if sys.argv[1] == "plane":
        result: dict[str, Any] = plane_bytes_per_peer(int(sys.argv[2]))
    else:
        result = uvloop.run(measure(int(sys.argv[1])))  # the loop that the daemon runs on
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
