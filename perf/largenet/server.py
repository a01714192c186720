"""A coordination server on 127.0.0.1 with one network of any size, for ``perf.largenet``.

    python -m perf.largenet.server PEERS PORT CERTNAME

PORT and CERTNAME are those of the one relay, at 127.0.0.1, too. Prints its URL. Every SIGUSR1 makes it send the
messages of the next kind of `CHANGES`, one peer each, and print "sent" and the kind.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from meshd.testing.fakecontrol import FakeControl
from meshd.wire.control import MapRequest
from meshd.wire.mapframe import MapFrameReader
from perf.scale.frames import deltas, whole

CHANGES = {"endpoint patch": 4000, "key change": 400, "peer added": 400, "peer removed": 400}
"""How many messages of each kind of `perf.scale.frames.deltas` are sent, in order."""

BURST = 20  # messages that leave together; a server under load does that, too
PAUSE_S = 0.01


async def serve(size: int, port: int, certificate: str) -> None:
    (message,) = MapFrameReader(zstd=True).feed(whole(size))
    network = orjson.loads(message)
    relay = {"Name": "1a", "RegionID": 1, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "DERPPort": port,
             "STUNPort": -1, "CertName": certificate}  # fmt: skip
    network["DERPMap"] = {"Regions": {"1": {"RegionID": 1, "RegionCode": "r1", "Nodes": [relay]}}}

    def first_map(request: MapRequest) -> Mapping[str, Any]:
        return {**network, "Node": {**network["Node"], "Key": request.node_key}, "KeepAlive": False}

    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, wanted.set)
    kinds = deltas(size)
    async with FakeControl() as control:
        control.first_map = first_map  # type: ignore[method-assign]
        print(control.url, flush=True)
        for kind, count in CHANGES.items():
            await wanted.wait()
            wanted.clear()
            for _ in range(count // BURST):
                for frame in itertools.islice(kinds[kind], BURST):
                    control.push(frame)
                await asyncio.sleep(PAUSE_S)
            print(f"sent {kind}", flush=True)
        await wanted.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
