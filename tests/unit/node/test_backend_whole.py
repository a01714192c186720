"""Backend and control client as one, in simulated time, between many callers, kills and a server of any mood."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time
from meshd.base.keys import DiscoPrivate, NodePrivate
from meshd.core.cachedmap import CachedMap
from meshd.core.prefs import Prefs, to_json
from meshd.core.state import State
from meshd.node import control as control_module
from meshd.node.control import ControlClient
from meshd.node.controlcalls import StatusError
from meshd.testing.clock import FakeClock
from meshd.testing.fakecontrol import node_json
from meshd.testing.loop import FakeTimeLoop
from meshd.wire.control import Login, MapRequest, MapResponse, RegisterRequest, RegisterResponse, User, decode
from tests.unit.node import backendworld
from tests.unit.node.backendworld import DISCO, Fixture
from tests.unit.node.test_backend_schedule import Cache, Disk

STEPS = 60
SILENCE_S = 3600.0
UP = {"WantRunning": True, "WantRunningSet": True, "LoggedOutSet": True}
BROKEN = MeshdError("broke", code="control-closed")
T = TypeVar("T")


def status_error(status: int) -> StatusError:
    wait = "7" if status == 429 else ""
    return StatusError(f"status {status}", code="control-status", hint=None, status=status, retry_after=wait)


class Known:
    """A node as the server knows it."""

    def __init__(self, key: str, user: int) -> None:
        self.key = key
        self.user = user
        self.expired = False
        self.approved = True


class Server:
    """A coordination server. While it is ``well`` it answers as it should."""

    def __init__(self, chance: random.Random, clock: FakeClock) -> None:
        self.chance = chance
        self.clock = clock
        self.well = False
        self.nodes: dict[str, Known] = {}
        self.pages: dict[str, tuple[str, asyncio.Event]] = {}
        self.page_count = self.visited = 0
        self.streams: dict[asyncio.Queue[dict[str, Any] | None], str] = {}
        self.connections: list[Connection] = []

    def fails(self, probability: float) -> bool:
        return not self.well and self.chance.random() < probability

    async def pause(self, longest: float) -> None:
        await asyncio.sleep(self.chance.random() * longest if self.fails(0.5) else 0)

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        await self.pause(2)
        mood = -1 if self.well else self.chance.randrange(12)
        match mood:
            case 0:
                raise BROKEN
            case 1 | 2:
                raise status_error(429 if mood == 1 else 500)
            case 3 if not request.followup:
                return RegisterResponse(error="no such key")
            case 4 if not request.followup:
                await asyncio.sleep(SILENCE_S)
        answer = await self._judge(request)
        if mood == 5:
            raise BROKEN
        await self.pause(0.1)
        return answer

    async def _judge(self, request: RegisterRequest) -> RegisterResponse:
        known = self.nodes.get(request.node_key)
        if not request.expiry.startswith("0001"):
            if known is None:
                return RegisterResponse(error="node not found")
            known.expired = True
            self.hang_up(known.key)
            return RegisterResponse()
        if known is None and request.auth is None:
            key, visited = self.pages.get(request.followup, ("", asyncio.Event()))
            if key != request.node_key:
                self.page_count += 1
                url = f"https://controlplane.tailscale.com/a/{self.page_count}"
                self.pages[url] = (request.node_key, visited)
                return RegisterResponse(auth_url=url)
            await visited.wait()
        known = self.nodes.get(request.node_key)
        if known is None:
            known = self.nodes[request.node_key] = Known(request.node_key, self.chance.randrange(1, 4))
            if self.nodes.pop(request.old_node_key, None) is not None:
                self.hang_up(request.old_node_key)
        if known.expired:
            return RegisterResponse(node_key_expired=True)
        name = f"u{known.user}"
        return RegisterResponse(
            user=User(id=known.user, display_name=name),
            login=Login(id=known.user, login_name=name),
            machine_authorized=known.approved,
        )

    def map(self, known: Known, changes: dict[str, Any]) -> MapResponse:
        fields: dict[str, Any] = {"MachineAuthorized": known.approved, "StableID": f"s{known.user}"}
        if known.expired:
            fields["KeyExpiry"] = "2020-01-01T00:00:00Z"
        told = {"Node": node_json(known.user, known.key, **fields), "Domain": f"net{known.user}", **changes}
        if self.chance.random() < 0.5:
            told["ControlTime"] = format_time(self.clock.monotonic() + 1_749_999_000)
        return decode(MapResponse, json.dumps(told).encode())

    def tell(self, **changes: Any) -> None:
        for stream in self.streams:
            stream.put_nowait(changes)

    def hang_up(self, key: str) -> None:
        for stream, of in self.streams.items():
            if of == key:
                stream.put_nowait(None)

    # -- what people do at the server -----------------------------------------------------------------------

    def visit(self) -> None:
        """Somebody lets in whoever waits for it."""
        for _, visited in self.pages.values():
            self.visited += not visited.is_set()
            visited.set()

    def restart(self) -> None:
        self.pages.clear()
        for connection in self.connections:
            connection.closed.set()
        self.connections.clear()

    def some(self, change: Callable[[Known], None]) -> None:
        for known in list(self.nodes.values()):
            if self.chance.random() < 0.5:
                change(known)
        self.tell()

    def expire(self, known: Known) -> None:
        known.expired = True

    def extend(self, known: Known) -> None:
        known.expired = False

    def approve(self, known: Known) -> None:
        known.approved = not known.approved

    def delete(self, known: Known) -> None:
        del self.nodes[known.key]
        self.hang_up(known.key)


class Link:
    """In place of ControlLink: connections that open and break."""

    server: Server

    def __init__(self, url: str, *_: Any) -> None:
        self.address = SimpleNamespace(url=url)
        self._ended = False
        self._current: Connection | None = None

    async def connection(self) -> Connection:
        await self.server.pause(0.5)
        if self._ended:
            raise BROKEN
        if self.server.fails(0.1):
            raise MeshdError("no way to the server", code="control-unreachable")
        if self._current is None or self._current.closed.is_set():
            self._current = Connection(self.server)
            self.server.connections.append(self._current)
        return self._current

    def close(self) -> None:
        if self._current is not None:
            self._current.closed.set()
            self._current = None

    def end(self) -> None:
        self._ended = True
        self.close()

    def probe(self) -> None:
        if self.server.fails(0.3):
            self.close()

    def keep_from(self, addresses: Any) -> None:
        pass


class Connection:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.closed = asyncio.Event()

    async def while_open(self, work: Coroutine[Any, Any, T]) -> T:
        task, closed = asyncio.ensure_future(work), asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait([task, closed], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise BROKEN
        finally:
            task.cancel()
            closed.cancel()


async def register(client: Connection, request: RegisterRequest) -> RegisterResponse:
    return await client.while_open(client.server.register(request))


async def update(client: Connection, request: MapRequest) -> None:
    await client.while_open(client.server.pause(2))
    if client.server.fails(0.2):
        raise BROKEN


async def map_stream(client: Connection, request: MapRequest) -> AsyncIterator[list[MapResponse]]:
    server = client.server
    await client.while_open(server.pause(2))
    known = server.nodes.get(request.node_key)
    if known is None or server.fails(0.15):
        raise status_error(404)
    stream: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    server.streams[stream] = known.key
    try:
        yield [server.map(known, {})]
        while True:
            try:
                async with asyncio.timeout(50):
                    said = await client.while_open(stream.get())
            except TimeoutError:
                if server.fails(0.1):
                    await client.while_open(asyncio.sleep(SILENCE_S))
                yield [MapResponse(keep_alive=True)]
                continue
            if said is None or server.fails(0.1):
                raise BROKEN
            yield [server.map(known, said)]
    finally:
        del server.streams[stream]


class MapCache(Cache):
    """The map of each profile, with the profile's own key in it."""

    def load(self, profile_id: str, prefs: Prefs) -> CachedMap | None:
        own = prefs.persist().node_private()
        if own is None or self.maps.get(profile_id) != own.public():
            return None
        told = {"Node": node_json(1, own.public().text()), "Domain": "cached"}
        return CachedMap("http://c", 1, DiscoPrivate.generate(), (), decode(MapResponse, json.dumps(told).encode()))


class Process(Fixture):
    """One life of the daemon. ``kill`` ends it without a word."""

    def __init__(self, disk: Disk, cache: MapCache, server: Server, trace: list[str]) -> None:
        self.disk = disk
        self.server = server
        self.chance = server.chance
        self.trace = trace
        self.carried: NodePrivate | None = None
        self.calls: list[asyncio.Task[None]] = []
        self.clients: list[ControlClient] = []
        self.down_since: int | None = None  # pages visited before the user's last word, when that was "down"
        super().__init__(disk, cache)
        self.reconciler.apply = self._apply  # type: ignore[method-assign]
        self.reconciler.stop = self._stop  # type: ignore[method-assign]
        self.live = True
        self.record()
        self.backend.begin()

    def make_control(self, **options: Any) -> Any:
        self.clients.append(ControlClient(disco_public=DISCO, clock=self.clock, **options))
        return self.clients[-1]

    def _apply(self, netmap: Any, prefs: Any, private: NodePrivate, change: Any) -> None:
        self.carried = private

    def _stop(self) -> None:
        self.carried = None

    def kill(self) -> Disk:
        """What is left of it: its disk."""
        left = Disk()
        left._values, left.full = dict(self.disk._values), self.disk.full
        for call in self.calls:
            call.cancel()
        for client in self.clients:
            client._on_status = lambda _: None
            client._driver.close()
            client._link.end()
            for task in client._tasks.values():
                task.cancel()
        self.backend._store_watch._cancel()
        return left

    # -- what programs, people and the host do ----------------------------------------------------------------

    def step(self) -> None:
        backend, chance, server = self.backend, self.chance, self.server
        ids = [profile.id for profile in backend.profiles.list()] or ["none"]
        acts: dict[str, tuple[int, Callable[[], Any]]] = {
            "start": (1, lambda: backend.start({})),
            "start with key": (2, lambda: backend.start(self._options() | {"AuthKey": "k"})),
            "start with prefs": (2, lambda: backend.start(self._options())),
            "log in with key": (3, self._log_in),
            "log in": (3, backend.login_interactive),
            "log out": (3, backend.logout),
            "up": (4, lambda: backend.edit_prefs(UP)),
            "down": (4, lambda: backend.edit_prefs({"WantRunningSet": True})),
            "sync": (1, lambda: backend.edit_prefs({"Sync": chance.random() < 0.3, "SyncSet": True})),
            "hostname": (1, lambda: backend.edit_prefs({"Hostname": f"h{chance.randrange(9)}", "HostnameSet": True})),
            "expire": (1, lambda: backend.requests.expire_key(1.0)),
            "new": (1, backend.new_profile),
            "switch": (2, lambda: backend.switch_profile(chance.choice(ids))),
            "delete": (1, lambda: backend.delete_profile(chance.choice([*ids, backend.profiles.current.id]))),
            "reset": (1, backend.reset_auth),
            "live": (2, self._flip_live),
            "disk": (1, self._flip_disk),
            "network": (1, lambda: backend.network_changed(frozenset(), woke=True)),
            "disconnect": (1, backend.disconnect_control),
            "clock": (1, lambda: self.clock.step_wall(chance.uniform(-1, 1) * 86400 * 365)),
            "visit": (4, server.visit),
            "restart": (1, server.restart),
            "expired": (2, lambda: server.some(server.expire)),
            "extended": (2, lambda: server.some(server.extend)),
            "approved": (1, lambda: server.some(server.approve)),
            "deleted": (1, lambda: server.some(server.delete)),
            "news": (1, lambda: server.tell(Health=["x"])),
        }
        [name] = chance.choices(list(acts), [weight for weight, _ in acts.values()])
        self.note(name)
        self.calls.append(asyncio.create_task(self._call(name, acts[name][1])))

    def note(self, what: str) -> None:
        self.trace.append(f"{self.clock.monotonic() - 1000:.2f} {what}")

    async def _call(self, name: str, act: Callable[[], Any]) -> None:
        try:
            found = act()
            prefs = self.backend.prefs
            if name == "down" and not self.backend.auth_url and not prefs.logged_out:
                self.down_since = self.server.visited
            elif not name.startswith(("ex", "net", "host", "live", "disk", "visit", "re", "news", "sync", "clock")):
                self.down_since = None
            if asyncio.iscoroutine(found):
                await found
        except MeshdError as error:
            self.note(f"({name}: {error.message})")

    def _options(self) -> dict[str, Any]:
        wanted = replace(self.backend.prefs, want_running=True, logged_out=False, config=None)
        return {"UpdatePrefs": to_json(wanted)}

    def _log_in(self) -> None:
        self.backend.start(self._options() | {"AuthKey": "k"})
        self.backend.login_interactive()

    def _flip_live(self) -> None:
        self.live = not self.live
        self.backend.relays_changed()

    def _flip_disk(self) -> None:
        self.disk.full = not self.disk.full

    # -- what has to hold ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whenever nothing of ours runs."""
        backend = self.backend
        if self.carried is not None:
            assert backend.state not in (State.NEEDS_LOGIN, State.STOPPED)
        told = [notify["State"] for notify in self.told if "State" in notify]
        assert (told or [0])[-1] == int(backend.state)
        shown = [notify["Prefs"] for notify in self.told if "Prefs" in notify]
        assert shown[-1] == to_json(backend.prefs.redacted())
        if self.down_since == self.server.visited:
            assert not backend.prefs.want_running

    def check_end(self) -> None:
        """Once the server is well and every page was visited."""
        backend, prefs, own = self.backend, self.backend.prefs, self.backend.node_private
        assert [c for c in self.clients if not c._closed] == ([backend._control] if backend._control else [])
        assert not backend._leaving
        streams = list(self.server.streams.values())
        known = self.server.nodes.get(own.public().text()) if own is not None else None
        if prefs.sync is False:
            assert streams == []
        elif own is None or prefs.logged_out:
            assert (backend.state, self.carried, streams) == (State.NEEDS_LOGIN, None, [])
        elif not prefs.want_running:
            assert (backend.state, self.carried, streams) == (State.STOPPED, None, [])
        elif known is not None and known.expired:
            assert (backend.state, self.carried) == (State.NEEDS_LOGIN, None)
        elif known is not None:
            assert backend.state is (State.RUNNING if known.approved else State.NEEDS_MACHINE_AUTH)
            assert backend.netmap is not None
            assert backend.netmap.node_key == own.public()
            assert self.carried == own
            assert streams == [known.key]


async def schedule(process: Process, cache: MapCache) -> None:
    chance, server = process.chance, process.server
    try:
        for _ in range(STEPS):
            if chance.random() < 0.03:
                process.note("killed")
                process = Process(process.kill(), cache, server, process.trace)
            process.step()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0 if chance.random() < 0.6 else chance.random() * chance.choice((0.1, 3, 60)))
                process.check()
        process.note("well")
        server.well = True
        async with asyncio.timeout(60):
            await asyncio.gather(*process.calls)
        process.disk.full = False
        if process.backend.prefs.want_running:
            process.backend.edit_prefs(UP)  # changes nothing, but ends a "disconnect", which lasts
        process.live = True
        process.backend.relays_changed()
        for _ in range(3):
            await asyncio.sleep(300)
            server.visit()
        await asyncio.sleep(300)
        process.check()
        process.check_end()
        await process.backend.close()
    except BaseException as error:
        prefs, control = process.backend.prefs, process.backend._control
        session = control._session if isinstance(control, ControlClient) else None
        error.add_note(f"{process.backend.state!r} {prefs.want_running=} {prefs.logged_out=}")
        error.add_note(f"{session and (session.auth, session.map_lane, session.logged_in, session.paused)}")
        error.add_note("\n".join(process.trace[-40:]))
        raise


@pytest.mark.parametrize("seed", range(40))
def test_backend_and_control_client_end_where_the_user_wants_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SM-02, SM-05, LK-05, LK-07, LK-10: whatever failed, the end is what user and server agree on."""
    clock, chance = FakeClock(), random.Random(seed)
    monkeypatch.setattr(backendworld, "FakeClock", lambda: clock)
    monkeypatch.setattr(control_module, "ControlLink", Link)
    monkeypatch.setattr(control_module.random, "random", random.Random(seed).random)
    for call in (register, update, map_stream):
        monkeypatch.setattr(control_module.controlcalls, call.__name__, call)
    loop = FakeTimeLoop(clock)
    server = Server(chance, clock)
    monkeypatch.setattr(Link, "server", server, raising=False)

    async def main() -> None:
        cache = MapCache()
        await schedule(Process(Disk(), cache, server, []), cache)

    try:
        loop.run(main())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_for(0.001)
        loop.close()
