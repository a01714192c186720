"""The daemon: command line, log, signals, and the life of one node."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.base.standardstreams import open_standard_streams, say
from meshd.base.switch import switch
from meshd.base.version import long_version
from meshd.daemon.envfile import apply_env_file
from meshd.daemon.flags import Flags, HelpWanted, parse_flags
from meshd.daemon.logsetup import report_environment, set_up_log
from meshd.daemon.memory import keep_what_is_there, set_up_memory
from meshd.daemon.parent import parent_pipe, watch_parent
from meshd.io.descriptors import descriptors_for
from meshd.io.stopsignals import leave

if TYPE_CHECKING:
    from meshd.daemon.assembly import RunningNode
    from meshd.daemon.debugserver import DebugServer
    from meshd.feature.proxy.listener import ProxyListener
    from meshd.node.authority import Authority

log = get_logger(__name__)

EXIT_FAILED, EXIT_USAGE = 1, 2
LOCK_NAME = "meshd.lock"
DESCRIPTORS = 65000
"""More than the LocalAPI's clients, questions of DNS and proxies together may hold."""
_PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
COMMAND_NAMES = ("mesh", "tailscale")
"""Called by one of these names (a link to it), the daemon is the command line."""


def main() -> int:
    """Entry point of ``meshd``; returns the exit status. With ``TS_BE_CLI`` or by that name it is the command line."""
    open_standard_streams()
    try:
        if switch(os.environ, "TS_BE_CLI") or Path(sys.argv[0]).name in COMMAND_NAMES:
            from meshd.cli.main import main as command_line

            return command_line()
        problem = apply_env_file(os.environ)
        flags = parse_flags(sys.argv[1:])
    except HelpWanted as wanted:
        return say(str(wanted))
    except MeshdError as error:
        print(f"meshd: {error}", file=sys.stderr)
        return EXIT_USAGE
    if flags.version:
        return say(f"{long_version()}\n")
    find_programs(os.environ)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ended_early)
    try:
        set_up_log(flags.verbose, os.environ, syslog=flags.syslog)
        if problem:
            log.error("environment_file_bad", extra=kv(reason=problem))
        report_environment(os.environ)
        find_ciphers()
        from meshd.node.authority import Authority

        authority = Authority(flags.config, flags.syspolicy_file)
        if not flags.cleanup:
            authority.load()
        prepare(flags)
        if flags.cleanup:
            return 0
    except Exception as error:  # noqa: BLE001 - told
        return _failed(error, flags)
    try:
        status = run(flags, authority, problem)
    except Exception as error:  # noqa: BLE001 - told
        status = _failed(error, flags)
    leave(status)


def _failed(error: Exception, flags: Flags) -> int:
    """Tell what went wrong; the exit status."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        error = MeshdError(
            f"the system allows meshd too few open files: {error.strerror}",
            hint="See LimitNOFILE= of its unit, or ulimit -n.",
        )
    if isinstance(error, MeshdError):
        log.error("meshd_failed", extra=kv(reason=error.message))
        print(f"meshd: {error}", file=sys.stderr)
        return EXIT_USAGE if error.code == "usage" else EXIT_FAILED
    # A bug: the log has all of it, the user a sentence.
    trace = error if flags.verbose > 0 else None
    log.critical("internal_error", exc_info=trace, extra=kv(what=type(error).__name__, reason=error))
    print("meshd: internal error; please report it with the log of meshd --verbose=1", file=sys.stderr)
    return EXIT_FAILED


def _ended_early(number: int, frame: FrameType | None) -> None:
    """A signal before the event loop takes them: there is nothing to close yet, and it is no failure."""
    raise SystemExit(0)


def find_programs(environment: MutableMapping[str, str]) -> None:
    """Have nft, iptables and resolvconf found where whoever starts us has not their folders in PATH, as cron.

    A PATH without any of the system's folders was meant so.
    """
    known = [folder for folder in environment.get("PATH", os.defpath).split(os.pathsep) if folder]
    if not known or not set(known).isdisjoint(_PROGRAMS):
        environment["PATH"] = os.pathsep.join([*known, *(folder for folder in _PROGRAMS if folder not in known)])


def find_ciphers() -> None:
    """Before anything else is imported that needs them: a wish that cannot be met is the user's to hear."""
    try:
        import meshd._fast.aead  # noqa: F401
    except ValueError as error:
        raise MeshdError(
            str(error), code="usage", hint="Unset MESHD_AEAD and MESHD_AEAD_LIBRARY to let meshd choose."
        ) from None


def prepare(flags: Flags) -> None:
    """Make the state directory, take it for ourselves, and undo what an earlier process left behind."""
    descriptors_for(DESCRIPTORS)
    if flags.statedir:
        try:
            Path(flags.statedir).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MeshdError(
                f"cannot make the state directory {flags.statedir}: {error.strerror}",
                code="host",
                hint="Choose another with --statedir, or run meshd as root.",
            ) from None
        claim(Path(flags.statedir))
    from meshd.daemon.hostpart import undo_traces

    undo_traces(flags)


def claim(directory: Path) -> None:
    """Hold the state directory until this process ends. MeshdError when another one does: what is undone next, and
    what is written later, would be his."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # a directory that cannot be written has no state to fight over
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise MeshdError(
            f"another meshd runs on the state directory {directory} already",
            code="host",
            hint="Stop it first, or choose another directory with --statedir.",
        ) from None
    except OSError as error:  # some network file systems have no locks
        log.info("state_directory_not_locked", extra=kv(reason=error.strerror))


def run(flags: Flags, authority: Authority, problem: str = "") -> int:
    """Run until a signal comes, or the coordination server wants us gone; the exit status, 0 for a signal.

    ``problem``: what is wrong with the environment.

    The loop is not closed: it would wait for name lookups, which `leave` does not.
    """
    import uvloop

    set_up_memory()

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(serve(flags, authority, problem))
    finally:
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())


async def serve(flags: Flags, authority: Authority, problem: str = "") -> int:
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
    orphaned = _end_with_parent(loop, stopped)
    notifier = ServiceNotifier()
    api = LocalApiServer()
    await api.start(flags.socket)
    notifier.ready()
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        await _delay(stopped)
        if stopped.is_set():
            return EXIT_FAILED if orphaned() else 0
        node = RunningNode(flags, authority, api, notifier, stopped.set, environment_problem=problem)
        await node.open()
        exits.push_async_callback(node.close)
        loop.add_signal_handler(signal.SIGHUP, node.reload)
        for proxy in await _start_proxies(flags, node):
            exits.push_async_callback(proxy.close)
        debug = await _start_debug(flags, node)
        if debug is not None:
            exits.push_async_callback(debug.close)
        keep_what_is_there()
        log.info("started", extra=kv(version=long_version(), socket=flags.socket, tun=flags.tun))
        await stopped.wait()
        log.info("stopping")
    if node.failure is not None:
        raise node.failure
    return EXIT_FAILED if orphaned() else node.exit_status


def _end_with_parent(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> Callable[[], bool]:
    """Stop when the process that started us goes (DM-05), if it wants that. Returns whether it went."""
    gone = asyncio.Event()

    def orphaned() -> None:
        log.error("parent_gone", extra=kv(action="stopping"))
        gone.set()
        stopped.set()

    descriptor = parent_pipe(os.environ)
    if descriptor is not None:
        watch_parent(loop, descriptor, orphaned)
    return gone.is_set


async def _delay(stopped: asyncio.Event) -> None:
    """Wait before the node is made, if tests of clients want that: until then requests wait."""
    text = os.environ.get("TS_DEBUG_BACKEND_DELAY_SEC", "")
    if not text:
        return
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise MeshdError(
            f'invalid value "{text}" for TS_DEBUG_BACKEND_DELAY_SEC: not a number of seconds', code="usage"
        )
    log.info("start_delayed", extra=kv(seconds=text))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), int(text))


def _log_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A bug: it is logged with where it happened, and the daemon goes on."""
    error = context.get("exception")
    log.error("internal_error", extra=kv(what=context.get("message", "")), exc_info=error if error else None)  # type: ignore[arg-type]


async def _start_proxies(flags: Flags, node: RunningNode) -> list[ProxyListener]:
    """The proxies that were asked for; at one address one listener serves both kinds."""
    socks_at, http_at = flags.socks5_server, flags.outbound_http_proxy_listen
    wanted = [("--socks5-server", socks_at)] if socks_at else []
    wanted += [("--outbound-http-proxy-listen", http_at)] if http_at and http_at != socks_at else []
    if not wanted:
        return []
    if node.userspace:
        log.warning(
            "proxy_without_mesh",
            extra=kv(reason="no tunnel interface: connections to machines of the mesh are refused, others are made"),
        )
    from meshd.feature.proxy.httpproxy import http_proxy
    from meshd.feature.proxy.listener import ProxyListener, either
    from meshd.feature.proxy.socks5 import socks5

    socks, http = socks5(node.dial), http_proxy(node.dial)
    started: list[ProxyListener] = []
    for flag, address in wanted:
        serve = either(socks, http) if socks_at == http_at else socks if flag == "--socks5-server" else http
        server = ProxyListener(serve, flag)
        try:
            await server.start(address)
        except MeshdError:
            for earlier in started:
                await earlier.close()
            raise
        started.append(server)
        # In the words that scripts wait for.
        log.info("%s listening on %s", "SOCKS5" if flag == "--socks5-server" else "HTTP proxy", server.address)
    return started


async def _start_debug(flags: Flags, node: RunningNode) -> DebugServer | None:
    if not flags.debug:
        return None
    from meshd.daemon.debugserver import DebugServer

    server = DebugServer(node.debug_pages())
    await server.start(flags.debug)
    return server


if __name__ == "__main__":
    sys.exit(main())
