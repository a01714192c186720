"""`mesh-coord serve`: run the server until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from meshd.base.log import KeyValueFormatter, get_logger, kv
from meshd.coord.options import ServeOptions
from meshd.coord.service import CoordService

log = get_logger(__name__)


def run(options: ServeOptions, *, verbose: bool) -> None:
    """Serve until SIGTERM or SIGINT. MeshdError when it cannot start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("meshd").setLevel(logging.DEBUG if verbose else logging.INFO)
    uvloop.run(_serve(options))


async def _serve(options: ServeOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = CoordService(options)
    await service.start()
    loop.add_signal_handler(signal.SIGHUP, service.reload_policy)
    print(f"mesh up --login-server={options.address.url} --auth-key={service.join_key}", flush=True)
    await stop.wait()
    log.info("stopping", extra=kv(nodes=len(service.network.nodes)))
    await service.close()
