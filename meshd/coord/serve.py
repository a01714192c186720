"""`mesh-coord serve`: run the server until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop

from meshd.base.log import get_logger, kv, log_to_stderr
from meshd.base.standardstreams import goes_to_journal, say
from meshd.coord.options import ServeOptions
from meshd.coord.service import CoordService
from meshd.io.stopsignals import leave, stop_wanted

log = get_logger(__name__)


def run(options: ServeOptions, *, verbose: bool) -> None:
    """Serve until SIGTERM or SIGINT. MeshdError when it cannot start."""
    log_to_stderr(verbose=verbose)
    uvloop.run(_serve(options))


async def _serve(options: ServeOptions) -> None:
    stop = stop_wanted()
    service = CoordService(options)
    await service.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload)
    key = "$(mesh-coord authkeys create)" if goes_to_journal(os.environ) else service.join_key
    say(f"mesh up --login-server={options.address.url} --auth-key={key}\n")
    await stop.wait()
    log.info("stopping", extra=kv(nodes=len(service.network.nodes)))
    await service.close()
    leave(0)
