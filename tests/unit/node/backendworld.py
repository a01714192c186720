"""A backend between doubles, for tests of its decisions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.keys import DiscoPrivate, DiscoPublic, NodePrivate, NodePublic
from meshd.core.cachedmap import CachedMap
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.node.authority import Authority
from meshd.node.backend import Backend
from meshd.node.discochannel import DiscoMemory
from meshd.node.hostinfo import by_prefs
from meshd.node.profiles import Profiles
from meshd.node.store import MemoryStore, Store
from meshd.testing.clock import FakeClock
from meshd.wire.control import Hostinfo, MapResponse, NetInfo, UserProfile


@dataclass
class ControlDouble:
    """A control client that does nothing but remember."""

    options: dict[str, Any]
    calls: list[str] = field(default_factory=list)
    map_heard_at: float | None = None
    in_map_poll: bool = False
    paused: bool = False

    def __post_init__(self) -> None:
        self.hostinfo: Hostinfo = self.options["hostinfo"]

    def recall(self, response: MapResponse) -> None:
        self.calls.append("recall")
        self.report(recalled=True, netmap=netmap(KEY), change=MapChange(full=True))

    def login(self, flags: LoginFlags = LoginFlags.DEFAULT) -> None:
        self.calls.append(f"login {flags!r}")

    async def logout(self, timeout: float) -> None:
        self.calls.append("logout")

    def network_changed(self, addresses: frozenset[IPAddress], *, gained: bool) -> None:
        self.calls.append(f"network {sorted(map(str, addresses))} {gained}")

    def set_paused(self, paused: bool) -> None:
        self.paused = paused

    def update_hostinfo(self, hostinfo: Hostinfo) -> None:
        self.calls.append(f"hostinfo {hostinfo.hostname}")
        self.hostinfo = hostinfo

    def update_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None:
        self.calls.append("endpoints")

    def update_netinfo(self, net_info: NetInfo) -> None:
        self.calls.append("netinfo")

    def update_disco_key(self, disco_public: DiscoPublic) -> None:
        self.calls.append("disco key")

    async def set_expiry_sooner(self, expiry: float) -> None:
        self.calls.append(f"expire {expiry}")

    async def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.calls.append(f"{method} {path} {body.decode()}")
        return 501, b"Not implemented yet"

    def disconnect(self) -> None:
        self.calls.append("disconnect")

    async def shutdown(self) -> None:
        self.calls.append("shutdown")

    def report(self, **status: Any) -> None:
        self.options["on_status"](ControlStatus(**status))


class ReconcilerDouble:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.prefs: Prefs | None = None
        self.private: NodePrivate | None = None
        self.on_stop: Callable[[], None] = lambda: None

    def apply(self, netmap: Netmap, prefs: Prefs, private: NodePrivate, change: MapChange | None) -> None:
        self.calls.append("apply")
        self.prefs, self.private = prefs, private

    def stop(self) -> None:
        self.calls.append("stop")
        self.on_stop()

    def network_changed(self, netmap: Netmap, prefs: Prefs) -> None:
        self.calls.append("network")


class CacheDouble:
    """Holds one cached netmap."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_hold: Callable[[], None] = lambda: None

    def load(self, profile_id: str, prefs: Prefs) -> CachedMap | None:
        self.calls.append("load")
        return CachedMap("http://c", 1, DiscoPrivate.generate(), (), MapResponse())

    def keep(self, profile_id: str, prefs: Prefs, netmap: Netmap) -> None:
        self.calls.append("keep")

    def forget(self, profile_id: str) -> None:
        self.calls.append("forget")

    def hold(self) -> None:
        self.on_hold()

    def close(self) -> None:
        self.calls.append("close")


class Fixture:
    """A backend with doubles around it."""

    def __init__(
        self,
        store: Store | None = None,
        cache: CacheDouble | None = None,
        authority: Authority | None = None,
    ) -> None:
        self.store = store if store is not None else MemoryStore()
        self.clock = FakeClock()
        self.controls: list[ControlDouble] = []
        self.reconciler = ReconcilerDouble()
        self.service: list[str] = []
        self.collected: list[bool] = []
        self.live = False
        self.disco = DISCO_PRIVATE
        self.met: list[NodePublic] = []
        self.greeted: list[NodePublic] = []
        self.attributes: list[dict[str, Any]] = []
        self.backend = Backend(
            clock=self.clock,
            store=self.store,
            profiles=Profiles(self.store, os.urandom, self.clock.wall),
            reconciler=self.reconciler,  # type: ignore[arg-type]
            make_control=self.make_control,
            describe_host=lambda prefs: by_prefs(Hostinfo(hostname=prefs.hostname), prefs),
            disco_key=lambda: self.disco.public(),
            disco_memory=DiscoMemory(lambda: self.disco, self.resume_disco, lambda: self.met, self.greeted.append),
            is_live=lambda: self.live,
            service_status=self.service.append,
            collect_services=self.collected.append,
            cache=cache,  # type: ignore[arg-type]
            authority=authority,
            on_attributes=self.attributes.append,
        )

    def resume_disco(self, private: DiscoPrivate) -> None:
        self.disco = private

    def make_control(self, **options: Any) -> ControlDouble:
        self.controls.append(ControlDouble(options))
        return self.controls[-1]

    @property
    def control(self) -> ControlDouble:
        return self.controls[-1]

    def record(self) -> None:
        self.told: list[dict[str, Any]] = []
        original = self.backend.bus.send

        def send(notify: dict[str, Any], bits: int = 0, *, without: int = 0) -> None:
            self.told.append(notify)
            original(notify, bits, without=without)

        self.backend.bus.send = send  # type: ignore[method-assign]


def netmap(key: NodePrivate, **changes: Any) -> Netmap:
    fields: dict[str, Any] = {
        "id": 1,
        "stable_id": "1",
        "name": "me.example.",
        "user": 1,
        "key": key.public(),
        "addresses": (ip_network("100.64.0.1/32"),),
        "allowed_ips": (ip_network("100.64.0.1/32"),),
        "machine_authorized": True,
    } | changes
    return Netmap(Node(**fields))


KEY = NodePrivate.generate()
DISCO_PRIVATE = DiscoPrivate.generate()
DISCO = DISCO_PRIVATE.public()
PERSIST = Persist(node_private=KEY, user_profile=UserProfile(id=1, login_name="u"), stable_id="1")


def log_in(made: Fixture, **changes: Any) -> None:
    made.control.report(logged_in=True, login_finished=True, persist=PERSIST)
    made.control.report(
        logged_in=True, in_map_poll=True, persist=PERSIST, netmap=netmap(KEY, **changes), change=MapChange(full=True)
    )


def run(
    test: Callable[[Fixture], Awaitable[None]], store: Store | None = None, cache: CacheDouble | None = None
) -> Fixture:
    async def body() -> Fixture:
        made = Fixture(store, cache)
        made.record()
        await test(made)
        await made.backend.close()
        return made

    return asyncio.run(body())


def take_down(store: Store) -> Store:
    """The store of a node that was taken down, logged in before, and ended."""

    async def leave(made: Fixture) -> None:
        made.backend.begin()
        if made.backend.node_private is None:
            log_in(made)
        made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})

    run(leave, store)
    store.ephemeral = False
    return store
