"""TCP connections to a host name: every address gets its chance, none delays the others for long.

RFC 8305 in short: addresses alternate between IPv6 and IPv4, a new attempt starts every 250 ms or as soon
as one failed, the first success wins.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from meshd.base.addr import IPAddress
from meshd.base.errors import MeshdError
from meshd.io.mark import mark_socket
from meshd.io.streams import SocketStream

ATTEMPT_DELAY = 0.250  # s between the starts of two attempts
MAX_ATTEMPTS = 8  # addresses of one name that are tried
KEEPALIVE_S = 15
KEEPALIVE_COUNT = 4
UNACKNOWLEDGED_MS = 60_000
PLAN_HEAD_START = 2.0  # s that planned addresses are tried before the name is

T = TypeVar("T")
_Address = tuple[int, Any]  # family, socket address


class PlannedAddress(NamedTuple):
    """An address of a host that is known without DNS, when to try it and for how long; seconds."""

    address: IPAddress
    delay_s: float
    timeout_s: float


async def dial_tcp(host: str, port: int, planned: Sequence[PlannedAddress] = ()) -> SocketStream:
    """A connected, marked stream. Raises MeshdError ``control-unknown-host`` or ``control-unreachable``.

    ``planned`` addresses are tried before the name is resolved.
    """
    sock = await (_by_plan_or_name(planned, host, port) if planned else _by_name(host, port))
    loop = asyncio.get_running_loop()
    try:
        _, stream = await loop.create_connection(SocketStream, sock=sock)
    except OSError as error:
        sock.close()
        raise unreachable(host, port, error) from None
    except BaseException:
        sock.close()
        raise
    return stream


async def _by_name(host: str, port: int) -> socket.socket:
    attempts = [_connect(family, address) for family, address in await resolve(host, port)]
    try:
        return await first_success(attempts, ATTEMPT_DELAY)
    except OSError as error:
        raise unreachable(host, port, error) from None


async def _by_plan_or_name(planned: Sequence[PlannedAddress], host: str, port: int) -> socket.socket:
    failures: list[MeshdError] = []

    async def by_name() -> socket.socket:
        try:
            return await _by_name(host, port)
        except MeshdError as error:
            failures.append(error)
            raise

    by_plan = first_success([_at(address, port) for address in planned[:MAX_ATTEMPTS]], 0.0)
    try:
        return await first_success([by_plan, by_name()], PLAN_HEAD_START)
    except (OSError, MeshdError):
        try:
            raise failures[0] from None
        finally:
            failures.clear()  # they know this frame


async def _at(planned: PlannedAddress, port: int) -> socket.socket:
    family = socket.AF_INET if planned.address.version == 4 else socket.AF_INET6
    await asyncio.sleep(planned.delay_s)
    async with asyncio.timeout(planned.timeout_s):
        return await _connect(family, (str(planned.address), port))


async def resolve(host: str, port: int) -> list[_Address]:
    """Socket addresses of a host, families alternating in the resolver's preference."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MeshdError(
            f"cannot find the host {host}: {reason}",
            code="control-unknown-host",
            hint="Check the spelling of the server's name and that DNS works on this machine.",
            host=host,
        ) from None
    first: list[_Address] = []
    other: list[_Address] = []
    for family, _, _, _, address in found:
        if (family, address) not in first and (family, address) not in other:
            (first if family == found[0][0] else other).append((family, address))
    mixed = [item for pair in zip(first, other, strict=False) for item in pair]
    shorter = min(len(first), len(other))
    return (mixed + first[shorter:] + other[shorter:])[:MAX_ATTEMPTS]


async def _connect(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        mark_socket(sock)
        keep_alive(sock)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # What nobody acknowledges is sent again for a quarter of an hour, and holds back those questions.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def keep_alive(sock: socket.socket) -> None:
    """Notice a peer that vanished although there may be nothing to send for days. A router that forgot the connection
    learns of it again from these questions: until then the other side does not get through to us."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def first_success(attempts: Sequence[Coroutine[Any, Any, T]], delay: float) -> T:
    """The result of the first attempt that works; the others are cancelled.

    Attempt n+1 starts ``delay`` seconds after attempt n, or at once when nothing is under way any more.
    Raises the first attempt's exception when all fail.
    """
    waiting = list(reversed(attempts))
    running: list[asyncio.Task[T]] = []
    failures: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.create_task(waiting.pop()))
            done, _ = await asyncio.wait(
                running, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.remove(task)
                error = task.exception()
                if error is None:
                    return task.result()
                failures.append(error)
        try:
            raise failures[0]
        finally:
            del failures, error, task, done  # it knows this frame, and they know it
    finally:
        for attempt in waiting:
            attempt.close()
        for task in running:
            task.cancel()
            task.add_done_callback(_discard)


def _discard(task: asyncio.Task[Any]) -> None:
    """An attempt that was cancelled too late: nobody wants its connection."""
    if task.cancelled() or task.exception() is not None:
        return
    close = getattr(task.result(), "close", None)
    if close is not None:
        close()


def unreachable(host: str, port: int, error: BaseException | str) -> MeshdError:
    """The error for a TCP connection that could not be made or broke at once."""
    if isinstance(error, ConnectionRefusedError):
        reason = "connection refused"
    elif isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno).lower()
    else:
        reason = str(error)
    return MeshdError(
        f"cannot connect to {host}:{port}: {reason}",
        code="control-unreachable",
        hint="Check that the server runs, that its name and port are right and that no firewall is in between.",
        host=host,
        port=port,
    )
