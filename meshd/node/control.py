"""The control client: one login at one coordination server, run on the event loop.

Everything it learns comes through ``on_status``; everything it is told (`update_hostinfo` and so on) reaches
the server by itself. While the server is away the netmap stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPublic, MachinePrivate
from meshd.base.log import get_logger, kv
from meshd.base.version import CAPABILITY_VERSION
from meshd.core.controleffects import (
    Cancel,
    Effect,
    HangUp,
    HoldMap,
    NodeFacts,
    OpenMap,
    Report,
    SendRegister,
    SendUpdate,
)
from meshd.core.controlsession import ControlSession
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.core.mapchange import MapChange
from meshd.core.mapruns import in_runs
from meshd.core.mapsession import MapSession
from meshd.core.mapstrip import Strip
from meshd.core.netmap import Netmap
from meshd.core.retryafter import parse_retry_after
from meshd.io.driver import Driver
from meshd.node import controlcalls
from meshd.node.controllink import ControlLink
from meshd.node.controlping import PingAnswerer, PingHandler, answer_c2n
from meshd.node.dialplan import DialPlan
from meshd.wire.control import ClientVersion, Hostinfo, MapRequest, MapResponse, NetInfo, RegisterRequest

log = get_logger(__name__)

REGISTER_TIMEOUT = 60.0  # s; a follow-up, which waits for a person, has no limit
REQUEST_TIMEOUT = 30.0  # s that a local program's request may take
LOGOUT_TIMEOUT = 10.0  # s that a logout waits for the server
MESSAGES_A_TURN = 64  # of those that came at once; a few milliseconds


class ControlClient:
    """Talks to one coordination server. Construct on the loop, then `login`; end with `shutdown`.

    ``on_status`` is called on the loop for every report, in order; it may call back in. ``on_ping`` answers
    ping requests of the server (type, address) and may be None; ``on_browse`` gets pages to show, ``on_exit``
    the exit code of a server that wants the process gone, ``c2n`` serialized HTTP requests of the server.
    ``tailnet`` is the only network that a login may lead to, "" for any. ``dial_plan`` outlives the client: where to
    find the server when DNS does not work.
    """

    def __init__(
        self,
        *,
        server_url: str,
        machine_private: Callable[[], MachinePrivate],
        persist: Persist,
        hostinfo: Hostinfo,
        disco_public: DiscoPublic,
        clock: Clock,
        on_status: Callable[[ControlStatus], None],
        auth_key: str = "",
        debug_flags: tuple[str, ...] = (),
        on_ping: PingHandler | None = None,
        on_browse: Callable[[str], object] | None = None,
        on_client_version: Callable[[ClientVersion], None] | None = None,
        on_exit: Callable[[int], None] | None = None,
        c2n: Callable[[bytes], Awaitable[bytes]] = answer_c2n,
        version: int = CAPABILITY_VERSION,
        strip: Strip = Strip(),  # noqa: B008 - it is a tuple of booleans
        dial_plan: DialPlan | None = None,
        tailnet: str = "",
    ) -> None:
        self._clock = clock
        self._dial_plan = dial_plan if dial_plan is not None else DialPlan()
        self._on_status = on_status
        self._on_browse = on_browse
        self._on_client_version = on_client_version
        self._on_exit = on_exit
        self._link = ControlLink(server_url, machine_private, version, clock, self._dial_plan)
        self._pings = PingAnswerer(self._link, on_ping, c2n)
        self._session = ControlSession(
            NodeFacts(hostinfo=hostinfo, disco_public=disco_public, debug_flags=debug_flags),
            persist,
            version=version,
            auth_key=auth_key,
            tailnet=tailnet,
            random_bytes=os.urandom,
            random=random.random,
        )
        self._driver: Driver[Effect] = Driver(asyncio.get_running_loop(), clock, self._session, self._execute)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._leaving: asyncio.Future[MeshdError | None] | None = None
        self._strip = strip
        self._hold = 0.0
        self._closed = False

    # -- what it knows -------------------------------------------------------------------------------------

    @property
    def server_url(self) -> str:
        return self._link.address.url

    @property
    def netmap(self) -> Netmap | None:
        """The last netmap, also while the server is away."""
        return self._session.map.netmap

    @property
    def persist(self) -> Persist:
        return self._session.persist

    @property
    def auth_url(self) -> str:
        """The page where a person must approve this node, ``""`` when there is none."""
        return self._session.auth_url

    @property
    def in_map_poll(self) -> bool:
        """The map stream is open and has brought a map: the server can reach us."""
        return self._session.in_map_poll

    @property
    def map_heard_at(self) -> float | None:
        """When the last message of the map stream came, keep-alives included; monotonic seconds."""
        return self._session.map_heard_at

    # -- what it is told -----------------------------------------------------------------------------------

    def recall(self, response: MapResponse) -> None:
        """Begin with the map that an earlier process had. Before `login`. Raises WireError when it is unusable."""
        self._session.recall(response, self._clock.monotonic(), self._clock.wall())
        self._driver.turn()

    def login(self, flags: LoginFlags = LoginFlags.DEFAULT) -> None:
        """Register, then keep the map stream open. A login or logout under way is replaced."""
        self._end_leave(MeshdError("a login began before the server had answered the logout", code="logout-failed"))
        self._session.login(flags, self._clock.monotonic(), self._clock.wall())
        self._driver.turn()

    async def logout(self, timeout: float = LOGOUT_TIMEOUT) -> None:
        """Expire the node key at the server and forget it. Raises MeshdError when the server was not told.

        The key is forgotten either way; the report with ``logged_out`` carries the empty identity. Who calls while
        a logout is under way waits for that one.
        """
        leaving = self._leaving
        if leaving is None:
            leaving = self._leaving = asyncio.get_running_loop().create_future()
            self._session.logout(self._clock.monotonic())
            self._driver.turn()
        try:
            async with asyncio.timeout(timeout):
                error = await asyncio.shield(leaving)
        except TimeoutError:
            error = MeshdError("the coordination server did not answer the logout in time", code="logout-failed")
            self._session.abandon_logout(error)
            self._driver.turn()
        if error is not None:
            raise error

    def _end_leave(self, error: MeshdError | None) -> None:
        """Let those go on who wait for a logout."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.set_result(error)

    async def set_expiry_sooner(self, expiry: float) -> None:
        """Let our key end at ``expiry`` (unix seconds), earlier than now set. Raises MeshdError."""
        request = self._session.expiry_request(expiry)
        if request is None:
            raise MeshdError("there is no node key to expire: not logged in", code="not-logged-in")
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                answer = await controlcalls.register(await self._link.connection(), request)
        except TimeoutError:
            raise MeshdError("the coordination server does not answer", code="control-silent") from None
        if answer.error:
            raise MeshdError(f"the coordination server refused: {answer.error[:200]}", code="control-status")

    async def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """A request of a local program to the server: its status and body as they are. Raises MeshdError."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await controlcalls.call(await self._link.connection(), method, path, body)
        except TimeoutError:
            raise MeshdError("the coordination server does not answer", code="control-silent") from None

    def disconnect(self) -> None:
        """Close the connection to the server; what needs it opens another one."""
        self._link.close()

    def update_hostinfo(self, hostinfo: Hostinfo) -> None:
        """A new description of this host, without ``net_info``."""
        self._set_facts(msgspec.structs.replace(self._session.facts, hostinfo=hostinfo))

    def update_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None:
        """Addresses at which peers may find us, with their kinds; the order is not important."""
        pairs = tuple((str(address), int(kind)) for address, kind in endpoints)
        known = self._session.facts.endpoints
        if known is None or set(known) != set(pairs):
            self._set_facts(msgspec.structs.replace(self._session.facts, endpoints=pairs))

    def update_netinfo(self, net_info: NetInfo) -> None:
        """Result of a network check. Latencies alone are no news for the server."""
        known = self._session.facts.net_info
        if known is None or _without_latency(known) != _without_latency(net_info):
            self._set_facts(msgspec.structs.replace(self._session.facts, net_info=net_info))

    def update_disco_key(self, disco_public: DiscoPublic) -> None:
        self._set_facts(msgspec.structs.replace(self._session.facts, disco_public=disco_public))

    def network_changed(self, addresses: frozenset[IPAddress], *, gained: bool) -> None:
        """The host has these addresses now; ``gained``: some of them are new, so it is worth trying again."""
        self._link.keep_from(addresses)
        self._link.probe()
        if gained:
            self._session.network_gained(self._clock.monotonic())
            self._driver.turn()

    def set_paused(self, paused: bool) -> None:
        """Stop talking to the server, or go on: SM-05."""
        self._session.set_paused(paused, self._clock.monotonic())
        if paused:
            self._link.close()
        self._driver.turn()

    async def shutdown(self) -> None:
        """End everything; no callback comes after this."""
        self._closed = True
        self._end_leave(MeshdError("the logout was given up", code="logout-failed"))
        self._driver.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pings.close()
        self._link.end()
        self._session.map = MapSession()  # a network is large, and callbacks that know this client may keep it

    # -- effects -------------------------------------------------------------------------------------------

    def _set_facts(self, facts: NodeFacts) -> None:
        self._session.set_facts(facts, self._clock.monotonic())
        self._driver.turn()

    def _execute(self, effect: Effect) -> None:
        if isinstance(effect, SendRegister):
            self._spawn(effect.number, lambda: self._register(effect.number, effect.request))
        elif isinstance(effect, OpenMap):
            self._spawn(effect.number, lambda: self._map(effect.number, effect.request))
        elif isinstance(effect, SendUpdate):
            self._spawn(effect.number, lambda: self._update(effect.number, effect.request))
        elif isinstance(effect, HangUp):
            self._link.close()
        elif isinstance(effect, HoldMap):
            self._hold = effect.seconds
        elif isinstance(effect, Cancel):
            task = self._tasks.get(effect.number)
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        else:
            self._report(effect)

    def _spawn(self, number: int, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except Exception as error:
                log.error("control_task_failed", extra=kv(reason=repr(error)), exc_info=error)
                fault = MeshdError(f"internal error while talking to the coordination server: {error}")
                now = self._clock.monotonic()
                self._session.register_failed(number, fault, now)
                self._session.map_failed(number, fault, now)
                self._session.update_failed(number, now)
                self._driver.turn()

        task = self._tasks[number] = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(lambda _: self._tasks.pop(number, None))  # also of one that ends before it begins

    def _report(self, report: Report) -> None:
        status = report.status
        if status.error is not None:
            log.warning("control_error", extra=kv(code=status.error.code, reason=status.error.message))
        if status.logged_out:
            self._end_leave(status.error)
        try:
            self._on_status(status)
        except Exception as error:  # ours, not the server's: to ask it again would not mend it
            log.error("control_report_failed", extra=kv(reason=repr(error)), exc_info=error)

    async def _register(self, number: int, request: RegisterRequest) -> None:
        limit = None if request.followup else REGISTER_TIMEOUT
        try:
            async with asyncio.timeout(limit):
                answer = await controlcalls.register(await self._link.connection(), request)
        except TimeoutError:
            self._link.close()
            silent = MeshdError("the coordination server does not answer the login", code="control-silent")
            self._session.register_failed(number, silent, self._clock.monotonic())
        except controlcalls.StatusError as error:
            now, wall = self._clock.monotonic(), self._clock.wall()
            wait = parse_retry_after(error.retry_after, wall)
            self._session.register_failed(number, error, now, retry_after=wait, limited=error.status == 429)
        except MeshdError as error:
            self._session.register_failed(number, error, self._clock.monotonic())
        else:
            self._session.register_answered(number, answer, self._clock.monotonic())
        self._driver.turn()

    async def _map(self, number: int, request: MapRequest) -> None:
        try:
            stream = controlcalls.map_stream(await self._link.connection(), request)
            async for came in stream:
                going = await self._messages(number, came)
                del came  # the next ones may be a minute away, and these a whole network
                if not going:
                    await stream.aclose()  # type: ignore[attr-defined]
                    return
        except MeshdError as error:
            self._session.map_failed(number, error, self._clock.monotonic())
            self._driver.turn()

    async def _messages(self, number: int, came: list[MapResponse]) -> bool:
        """Apply what came at once; whether the stream goes on."""
        messages = in_runs(came) if len(came) > 1 else came
        for place, raw in enumerate(messages, 1):
            message = self._strip.apply(raw)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("map_message", extra=kv(brings=_brings(message)))
            for _ in self._session.map.prepare(message):
                await asyncio.sleep(0)  # a map of thousands must not hold up everything else
            now, wall = self._clock.monotonic(), self._clock.wall()
            change = self._session.map_message(number, message, now, wall)
            # What came at once is told at once, but for what the next message depends on.
            if change is None or change.sleep_seconds or place == len(messages) or not place % MESSAGES_A_TURN:
                self._driver.turn()
            if change is None:
                return False
            self._one_off(change)
            if self._hold:
                hold, self._hold = self._hold, 0.0
                await asyncio.sleep(hold)
            elif not place % MESSAGES_A_TURN:
                await asyncio.sleep(0)
        return True

    async def _update(self, number: int, request: MapRequest) -> None:
        try:
            async with asyncio.timeout(controlcalls.UPDATE_TIMEOUT):
                await controlcalls.update(await self._link.connection(), request)
        except (MeshdError, TimeoutError) as error:
            log.info("control_update_failed", extra=kv(reason=getattr(error, "message", "no answer in time")))
            self._session.update_failed(number, self._clock.monotonic())
        else:
            self._session.update_done(number, self._clock.monotonic())
        self._driver.turn()

    def _one_off(self, change: MapChange) -> None:
        if change.ping is not None:
            self._pings.handle(change.ping)
        if change.dial_plan is not None:
            self._dial_plan.learn(self.server_url, change.dial_plan)
        if change.pop_browser_url and self._on_browse is not None:
            self._on_browse(change.pop_browser_url)
        if change.client_version is not None and self._on_client_version is not None:
            self._on_client_version(change.client_version)
        if change.exit_code is not None and self._on_exit is not None:
            self._on_exit(change.exit_code)


def _brings(message: MapResponse) -> str:
    """The fields of a map message that say something, with how much."""
    found = []
    for field in msgspec.structs.fields(MapResponse):
        value = getattr(message, field.name)
        if value:
            count = len(value) if isinstance(value, tuple | dict) else 0
            found.append(f"{field.encode_name}:{count}" if count else field.encode_name)
    return ",".join(found) or "nothing"


def _without_latency(net_info: NetInfo) -> NetInfo:
    return msgspec.structs.replace(net_info, derp_latency={})
