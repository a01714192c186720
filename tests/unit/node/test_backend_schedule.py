"""The backend while many programs ask at once and the coordination server answers, fails and delays as it likes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate, NodePublic
from meshd.core.cachedmap import CachedMap
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs, to_json
from meshd.core.state import State
from meshd.node.profiles import Profiles
from meshd.node.store import MemoryStore
from meshd.wire.control import MapResponse, NetInfo, UserProfile
from tests.unit.node.backendworld import CacheDouble, ControlDouble, Fixture, netmap

STEPS = 80


class Disk(MemoryStore):
    ephemeral = False
    full = False

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        if self.full and any(self.read(key) != (value or None) for key, value in changes.items()):
            raise MeshdError("no space", code="unavailable")
        super().update(changes)


class Server(ControlDouble):
    """A client whose server answers at some later turn of the loop, if at all."""

    chance: random.Random
    asked: asyncio.Task[None] | None = None
    over = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.persist: Persist = self.options["persist"]

    def login(self, flags: LoginFlags = LoginFlags.DEFAULT) -> None:
        super().login(flags)
        assert not self.over
        if self.asked is not None:
            self.asked.cancel()
        self.asked = asyncio.get_running_loop().create_task(self._log_in(flags))

    async def _turns(self) -> None:
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)

    async def _log_in(self, flags: LoginFlags) -> None:
        await self._turns()
        match self.chance.randrange(6):
            case 0:
                self.tell(error=MeshdError("refused", code="auth-refused"))
                return
            case 1:
                self.tell(error=MeshdError("away", code="control-closed"))
                await self._turns()
            case 2:
                return  # silent for ever
            case 3:
                self.tell(auth_url="https://controlplane.tailscale.com/a/1", can_continue=False)
                await self._turns()
        if flags & LoginFlags.INTERACTIVE or self.persist.node_private is None:
            number = self.chance.randrange(1, 4)
            user = UserProfile(id=number, login_name=f"u{number}")
            self.persist = replace(
                self.persist, node_private=NodePrivate.generate(), user_profile=user, stable_id=f"s{number}"
            )
        self.tell(logged_in=True, login_finished=True, persist=self.persist)
        for _ in range(self.chance.randrange(4)):
            await self._turns()
            match self.chance.randrange(6):
                case 0:
                    self.map(key_expired=True)
                case 1:
                    self.map(machine_authorized=False)
                case 2:
                    known = self.own_map(True)
                    self.tell(logged_in=True, netmap=known, error=MeshdError("broke", code="control-closed"))
                case _:
                    self.map()

    def own_map(self, machine_authorized: bool) -> Netmap:
        key = self.persist.node_private
        assert key is not None
        return netmap(key, machine_authorized=machine_authorized)

    def map(self, *, machine_authorized: bool = True, **facts: Any) -> None:
        known = self.own_map(machine_authorized)
        self.tell(logged_in=True, in_map_poll=True, netmap=known, change=MapChange(full=True), **facts)

    def recall(self, response: MapResponse) -> None:
        assert not self.over
        self.tell(recalled=True, netmap=self.own_map(True), change=MapChange(full=True))

    def tell(self, **status: Any) -> None:
        if not self.over:
            self.options["on_status"](ControlStatus(**status))

    async def logout(self, timeout: float) -> None:
        if self.asked is not None:
            self.asked.cancel()
        await self._turns()
        self.persist = Persist()
        self.tell(logged_out=True, persist=self.persist)
        if self.chance.random() < 0.3:
            raise MeshdError("no answer", code="logout-failed")

    async def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        await self._turns()
        return 200, b""

    async def shutdown(self) -> None:
        self.over = True
        if self.asked is not None:
            self.asked.cancel()
        await super().shutdown()


class Cache(CacheDouble):
    """One map for each profile, by its key."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: dict[str, NodePublic] = {}

    def load(self, profile_id: str, prefs: Prefs) -> CachedMap | None:
        own = prefs.persist().node_private()
        fits = own is not None and self.maps.get(profile_id) == own.public()
        return super().load(profile_id, prefs) if fits else None

    def keep(self, profile_id: str, prefs: Prefs, netmap: Netmap) -> None:
        own = prefs.persist().node_private()
        assert own is not None
        assert own.public() == netmap.node_key
        self.maps[profile_id] = netmap.node_key

    def forget(self, profile_id: str) -> None:
        self.maps.pop(profile_id, None)


class World(Fixture):
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.disk = Disk()
        super().__init__(self.disk, Cache())
        self.carried: NodePrivate | None = None
        self.reconciler.apply = self._apply  # type: ignore[method-assign]
        self.reconciler.stop = self._stop  # type: ignore[method-assign]
        self.calls: list[asyncio.Task[Any]] = []
        self.trace: list[str] = []
        self.record()

    def make_control(self, **options: Any) -> ControlDouble:
        control = Server(options)
        control.chance = self.chance
        self.controls.append(control)
        return control

    def _apply(self, map: Any, prefs: Any, private: NodePrivate, change: Any) -> None:
        self.carried = private

    def _stop(self) -> None:
        self.carried = None

    def step(self) -> None:
        backend, chance = self.backend, self.chance
        ids = [profile.id for profile in backend.profiles.list()] or ["none"]
        acts: dict[str, Any] = {
            "start": lambda: backend.start({}),
            "start with key": lambda: backend.start({"AuthKey": "k"}),
            "start with prefs": lambda: backend.start(
                {"UpdatePrefs": to_json(replace(backend.prefs, want_running=True, logged_out=False, config=None))}
            ),
            "login": backend.login_interactive,
            "logout": backend.logout,
            "expire": lambda: backend.requests.expire_key(1.0),
            "exit node": lambda: backend.edit_prefs({"ExitNodeID": "n", "ExitNodeIDSet": True}),
            "use exit node": lambda: backend.use_exit_node(chance.random() < 0.5),
            "host": lambda: backend.network_changed(frozenset(), woke=True),
            "report": lambda: backend.requests.report_disconnect("net", "x"),
            "up": lambda: backend.edit_prefs({"WantRunning": True, "WantRunningSet": True, "LoggedOutSet": True}),
            "down": lambda: backend.edit_prefs({"WantRunningSet": True}),
            "hostname": lambda: backend.edit_prefs({"Hostname": f"h{chance.randrange(9)}", "HostnameSet": True}),
            "new": backend.new_profile,
            "switch": lambda: backend.switch_profile(chance.choice(ids)),
            "delete": lambda: backend.delete_profile(chance.choice([*ids, backend.profiles.current.id])),
            "reset": backend.reset_auth,
            "net": lambda: backend.set_net_info(NetInfo(preferred_derp=chance.randrange(9))),
            "live": self._flip_live,
            "disk": self._flip_disk,
        }
        weights = [1, 1, 2, 3, 4, 1, 1, 1, 1, 1, 3, 2, 1, 2, 3, 1, 1, 1, 2, 1]
        [name] = chance.choices(list(acts), weights)
        self.trace.append(name)
        self.calls.append(asyncio.create_task(self._call(name, acts[name])))

    async def _call(self, name: str, act: Any) -> None:
        try:
            found = act()
            if asyncio.iscoroutine(found):
                await found
        except MeshdError as error:
            self.trace.append(f"({name}: {error.message})")

    def _flip_live(self) -> None:
        self.live = not self.live
        self.backend.relays_changed()

    def _flip_disk(self) -> None:
        self.disk.full = not self.disk.full

    def check(self) -> None:
        """What holds whenever nothing of ours runs."""
        backend = self.backend
        alive = [control for control in self.controls if "shutdown" not in control.calls]
        said = [control for control in alive if control is not backend._control and control not in backend._leaving]
        assert len(said) <= len(backend._closing)
        if self.carried is not None:
            assert self.carried == backend.node_private or self._awaits_map()
            assert backend.state not in (State.NEEDS_LOGIN, State.STOPPED)
        if backend.state in (State.STARTING, State.RUNNING):
            assert self.carried == backend.node_private or self._awaits_map()
        told = [notify["State"] for notify in self.told if "State" in notify]
        assert (told or [0])[-1] == int(backend.state)
        shown = [notify["Prefs"] for notify in self.told if "Prefs" in notify]
        assert shown[-1] == to_json(backend.prefs.redacted())
        if not self.disk.full and backend.profiles.current.id and not backend.profiles._unstored:
            stored = Profiles(self.disk, bytes, self.clock.wall)
            assert (stored.current.id, stored.prefs) == (backend.profiles.current.id, backend.prefs)

    def _awaits_map(self) -> bool:
        """Whether the map of a new login is on its way."""
        own, netmap = self.backend.node_private, self.backend.netmap
        return netmap is None or own is None or netmap.node_key != own.public()

    async def run(self) -> None:
        self.live = True
        self.backend.begin()
        for _ in range(STEPS):
            self.step()
            for _ in range(self.chance.randrange(5)):
                await asyncio.sleep(0)
                self.check()
        self.disk.full = False
        async with asyncio.timeout(10):
            await asyncio.gather(*self.calls)
        for _ in range(40):
            await asyncio.sleep(0)
        self.check()
        alive = [control for control in self.controls if "shutdown" not in control.calls]
        assert alive == ([self.backend._control] if self.backend._control is not None else [])
        assert not self.backend._leaving
        await self.backend.close()


@pytest.mark.parametrize("seed", range(40))
def test_backend_many_callers_and_a_server_of_any_mood(seed: int) -> None:
    """State, preferences, disk, watchers and data plane agree whenever nothing runs, and every call ends."""

    async def main() -> None:
        world = World(seed)
        try:
            await world.run()
        except BaseException as error:
            error.add_note(f"{world.backend.state!r} {' '.join(world.trace[-12:])}")
            raise

    asyncio.run(main())
