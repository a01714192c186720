"""The daemon: command line, log, signals, and the life of one node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meshd.base.errors import MeshdError
from meshd.base.log import KeyValueFormatter, get_logger, kv
from meshd.base.version import long_version
from meshd.daemon.flags import Flags, HelpWanted, parse_flags
from meshd.daemon.memory import keep_what_is_there, set_up_memory

if TYPE_CHECKING:
    from meshd.daemon.assembly import RunningNode
    from meshd.daemon.debugserver import DebugServer
    from meshd.feature.proxy.socks5 import Socks5Server

log = get_logger(__name__)

EXIT_FAILED, EXIT_USAGE = 1, 2


def main() -> int:
    """Entry point of ``meshd``; returns the exit status."""
    try:
        flags = parse_flags(sys.argv[1:])
    except HelpWanted as wanted:
        sys.stdout.write(str(wanted))
        return 0
    except MeshdError as error:
        print(f"meshd: {error}", file=sys.stderr)
        return EXIT_USAGE
    if flags.version:
        print(long_version())
        return 0
    set_up_log(flags.verbose)
    try:
        prepare(flags)
        if flags.cleanup:
            return 0
        return run(flags)
    except MeshdError as error:
        log.error("meshd_failed", extra=kv(reason=error.message))
        print(f"meshd: {error}", file=sys.stderr)
        return EXIT_USAGE if error.code == "usage" else EXIT_FAILED
    except Exception as error:  # a bug: the log has all of it, the user a sentence
        log.critical("internal_error", exc_info=flags.verbose > 0, extra=kv(what=type(error).__name__, reason=error))
        print("meshd: internal error; please report it with the log of meshd --verbose=1", file=sys.stderr)
        return EXIT_FAILED


def set_up_log(verbose: int) -> None:
    """One line per event on standard error, without times where the service manager adds them."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValueFormatter(timestamps="JOURNAL_STREAM" not in os.environ))
    root = logging.getLogger("meshd")
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 0 else logging.INFO)


def prepare(flags: Flags) -> None:
    """Make the state directory and undo what an earlier process left behind."""
    if flags.statedir:
        try:
            Path(flags.statedir).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MeshdError(
                f"cannot make the state directory {flags.statedir}: {error.strerror}",
                code="host",
                hint="Choose another with --statedir, or run meshd as root.",
            ) from None
    from meshd.daemon.hostpart import undo_traces

    undo_traces(flags)


def run(flags: Flags) -> int:
    """Run until a signal comes; 0 when one did."""
    import uvloop

    set_up_memory()

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(serve(flags))
    finally:
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def serve(flags: Flags) -> int:
    """One node from start to end. Raises MeshdError when it had to stop by itself."""
    from meshd.daemon.assembly import RunningNode
    from meshd.daemon.notify import ServiceNotifier
    from meshd.feature.localapi.server import LocalApiServer

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_exception)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    notifier = ServiceNotifier()
    api = LocalApiServer()
    await api.start(flags.socket)
    notifier.ready()
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        node = RunningNode(flags, api, notifier, stopped.set)
        await node.open()
        exits.push_async_callback(node.close)
        for server in (await _start_proxy(flags, node), await _start_debug(flags, node)):
            if server is not None:
                exits.push_async_callback(server.close)
        keep_what_is_there()
        log.info("started", extra=kv(version=long_version(), socket=flags.socket, tun=flags.tun))
        await stopped.wait()
        log.info("stopping")
    if node.failure is not None:
        raise node.failure
    return 0


def _log_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A bug: it is logged with where it happened, and the daemon goes on."""
    error = context.get("exception")
    log.error("internal_error", extra=kv(what=context.get("message", "")), exc_info=error if error else None)  # type: ignore[arg-type]


async def _start_proxy(flags: Flags, node: RunningNode) -> Socks5Server | None:
    if not flags.socks5_server:
        return None
    if node.userspace:
        raise MeshdError(
            "--socks5-server needs a tunnel interface: without one this version cannot open connections into the mesh",
            code="usage",
            hint="Leave out --socks5-server or --tun=userspace-networking.",
        )
    from meshd.feature.proxy.socks5 import Socks5Server

    server = Socks5Server(node.dial)
    await server.start(flags.socks5_server)
    return server


async def _start_debug(flags: Flags, node: RunningNode) -> DebugServer | None:
    if not flags.debug:
        return None
    from meshd.daemon.debugserver import DebugServer

    server = DebugServer(node.metrics)
    await server.start(flags.debug)
    return server


if __name__ == "__main__":
    sys.exit(main())
