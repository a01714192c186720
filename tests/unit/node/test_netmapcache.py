"""The cache of netmaps on disk: sealed, bounded in cost, and gone when it must not be used."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, NodePrivate, NodePublic
from meshd.core.mapsession import MapSession
from meshd.core.netmap import Netmap
from meshd.core.prefs import Persist, Prefs, UserProfile
from meshd.node import netmapcache
from meshd.node.netmapcache import MAGIC, NetmapCache, cache_wanted
from meshd.node.profiledata import ProfileData
from meshd.testing.clock import FakeClock
from tests.unit.core.mapworld import node, own, send
from tests.unit.threads import no_room_for_threads

KEY = NodePrivate.generate()


class PathsDouble:
    def __init__(self) -> None:
        self.disco_private = DiscoPrivate.generate()
        self.reached: dict[NodePublic, AddrPort] = {}

    def adopt_disco(self, private: DiscoPrivate) -> None:
        self.disco_private = private

    def last_addresses(self) -> dict[NodePublic, AddrPort]:
        return self.reached


def prefs(key: NodePrivate = KEY, url: str = "http://c", user: int = 7) -> Prefs:
    persist = Persist(private_node_key=key.text(), user_profile=UserProfile(id=user, login_name="u"), node_id="1")
    return Prefs(control_url=url, want_running=True, config=persist)


def netmap(**fields: object) -> Netmap:
    session = MapSession()
    send(session, Node=own(Key=KEY.public().text(), **fields), Peers=[node(2), node(3)])
    assert session.netmap is not None
    return session.netmap


class Bench:
    def __init__(self, root: Path, *, enabled: bool = True) -> None:
        self.paths = PathsDouble()
        self.connected: list[NodePublic] = []
        self.data = ProfileData(root)
        self.file = root / "profile-data" / "ab12" / "netmap-cache" / "netmap"
        self.cache = NetmapCache(
            self.data,
            FakeClock(),
            self.paths,
            lambda: self.connected,
            asyncio.get_running_loop(),
            enabled=enabled,
        )

    def kept(self) -> Bench:
        self.cache.keep("ab12", prefs(), netmap())
        self.cache.close()
        assert self.file.exists()
        return self


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


def test_cache_brings_back_map_disco_key_and_sessions(tmp_path: Path) -> None:
    """file:derpmap.cached.json; NM-13, PS-18: below profile-data, private."""

    async def test() -> None:
        bench = Bench(tmp_path)
        there = netmap()
        bench.connected = [there.peers[3].key, NodePrivate.generate().public()]
        bench.cache.keep("ab12", prefs(), there)
        bench.cache.close()
        assert bench.file.stat().st_mode & 0o777 == 0o600
        again = Bench(tmp_path)
        cached = again.cache.load("ab12", prefs())
        assert cached is not None
        assert [peer.id for peer in cached.response.peers] == [2, 3]
        assert cached.met == (3,)
        assert again.paths.disco_private == bench.paths.disco_private

    run(test)


def test_cache_of_a_stopped_node_keeps_the_disco_key_and_sessions_of_before(tmp_path: Path) -> None:
    """PS-18: a stop makes another key, of which no peer hears until the node is back."""

    async def test() -> None:
        bench = Bench(tmp_path)
        there = netmap()
        known = bench.paths.disco_private
        bench.connected = [there.peers[3].key]
        bench.paths.reached = {there.peers[3].key: AddrPort.parse("192.0.2.3:41641")}
        bench.cache.keep("ab12", prefs(), there)
        for _ in range(2):  # down, and then another profile
            bench.cache.hold()
            bench.connected, bench.paths.reached = [], {}
            bench.paths.disco_private = DiscoPrivate.generate()
        bench.cache.close()
        again = Bench(tmp_path)
        cached = again.cache.load("ab12", prefs())
        assert cached is not None
        assert again.paths.disco_private == known
        assert cached.met == (3,)
        assert "192.0.2.3:41641" in cached.response.peers[1].endpoints

    run(test)


@pytest.mark.parametrize("resumed", [False, True])
def test_cache_of_a_node_that_is_back_keeps_what_is_there_now(tmp_path: Path, *, resumed: bool) -> None:
    """Back with a new map or, while the server is away, with the key of before."""

    async def test() -> None:
        bench = Bench(tmp_path)
        there = netmap()
        before = bench.paths.disco_private
        bench.connected = [there.peers[3].key]
        bench.cache.keep("ab12", prefs(), there)
        bench.cache.hold()
        bench.paths.disco_private = before if resumed else DiscoPrivate.generate()
        bench.connected = [there.peers[2].key]
        if not resumed:
            bench.cache.keep("ab12", prefs(), there)
        bench.cache.close()
        again = Bench(tmp_path)
        cached = again.cache.load("ab12", prefs())
        assert cached is not None
        assert again.paths.disco_private == bench.paths.disco_private
        assert cached.met == (2,)

    run(test)


def test_cache_file_holds_nothing_readable(tmp_path: Path) -> None:
    """file:profile-data."""

    async def test() -> None:
        bench = Bench(tmp_path).kept()
        data = bench.file.read_bytes()
        for secret in (bench.paths.disco_private.raw, b"100.64", KEY.raw, netmap().peers[2].name.encode()):
            assert secret not in data

    run(test)


def test_cache_writes_soon_and_then_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netmapcache, "FIRST_WRITE_S", 0.01)

    async def test() -> None:
        bench = Bench(tmp_path)
        bench.cache.keep("ab12", prefs(), netmap())
        for _ in range(500):
            if bench.file.exists() and bench.cache._writer is None:
                break
            await asyncio.sleep(0.01)
        first = bench.file.read_bytes()
        for _ in range(50):
            bench.cache.keep("ab12", prefs(), netmap(Name="new.example."))
        await asyncio.sleep(0.05)
        assert bench.file.read_bytes() == first
        assert bench.cache._timer is not None
        assert bench.cache._timer.when() - asyncio.get_running_loop().time() > netmapcache.QUIET_S / 2
        bench.cache.close()
        assert bench.file.read_bytes() != first

    run(test)


def test_cache_is_written_where_a_thread_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container limits how many there are: written later, or at the end."""
    monkeypatch.setattr(netmapcache, "FIRST_WRITE_S", 0.0)
    monkeypatch.setattr(netmapcache, "QUIET_S", 0.01)

    async def test() -> None:
        bench = Bench(tmp_path)
        with no_room_for_threads(monkeypatch):
            bench.cache.keep("ab12", prefs(), netmap())
            await asyncio.sleep(0.02)
            assert not bench.file.exists()
        async with asyncio.timeout(20):
            while bench.cache._writer is not None or not bench.file.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        bench.file.unlink()
        with no_room_for_threads(monkeypatch):
            bench.cache.keep("ab12", prefs(), netmap())
            await asyncio.sleep(0.02)
            bench.cache.close()
        assert bench.file.exists()

    run(test)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[: len(MAGIC) + 5],
        lambda data: b"meshd netmap 0\n" + data[len(MAGIC) :],
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
        lambda data: b'{"json": 1}',
    ],
    ids=["half", "one byte short", "empty", "no nonce", "older version", "one bit", "another file"],
)
def test_cache_damaged_file_is_ignored_and_removed(
    tmp_path: Path, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = Bench(tmp_path).kept()
        bench.file.write_bytes(spoil(bench.file.read_bytes()))
        assert bench.cache.load("ab12", prefs()) is None
        assert not bench.file.exists()
        assert [r.getMessage() for r in caplog.records] == ["netmap_cache_refused"]

    run(test)


@pytest.mark.parametrize(
    "wanted",
    [prefs(NodePrivate.generate()), prefs(url="http://other"), prefs(user=8)],
    ids=["another node key", "another server", "another user"],
)
def test_cache_of_another_login_is_ignored_and_removed(tmp_path: Path, wanted: Prefs) -> None:
    async def test() -> None:
        bench = Bench(tmp_path).kept()
        assert bench.cache.load("ab12", wanted) is None
        assert not bench.file.exists()

    run(test)


def test_cache_of_logged_out_profile_is_not_used(tmp_path: Path) -> None:
    async def test() -> None:
        bench = Bench(tmp_path).kept()
        assert bench.cache.load("ab12", Prefs(control_url="http://c")) is None
        assert bench.cache.load("", prefs()) is None

    run(test)


def test_cache_expired_own_key_is_ignored_and_removed(tmp_path: Path) -> None:
    async def test() -> None:
        bench = Bench(tmp_path)
        bench.cache.keep("ab12", prefs(), netmap(KeyExpiry="2021-01-01T00:00:00Z"))
        bench.cache.close()
        assert bench.cache.load("ab12", prefs()) is None
        assert not bench.file.exists()

    run(test)


def test_cache_forgotten_profile_is_not_written_again(tmp_path: Path) -> None:
    """PS-12, PS-18: what belongs to a profile goes with it."""

    async def test() -> None:
        bench = Bench(tmp_path).kept()
        bench.cache.keep("ab12", prefs(), netmap())
        bench.cache.forget("ab12")
        bench.data.remove("ab12")
        bench.cache.touch()
        bench.cache.close()
        assert os.listdir(tmp_path / "profile-data") == []

    run(test)


def test_cache_switched_off_keeps_nothing_and_removes_what_there_was(tmp_path: Path) -> None:
    async def test() -> None:
        Bench(tmp_path).kept()
        off = Bench(tmp_path, enabled=False)
        assert off.cache.load("ab12", prefs()) is None
        assert not off.file.exists()
        off.cache.keep("ab12", prefs(), netmap())
        off.cache.close()
        assert not off.file.exists()

    run(test)


def test_cache_network_that_forbids_it_removes_it(tmp_path: Path) -> None:
    async def test() -> None:
        bench = Bench(tmp_path).kept()
        bench.cache.keep("ab12", prefs(), netmap(CapMap={"disable-cache-network-maps": None}))
        bench.cache.close()
        assert not bench.file.exists()

    run(test)


def test_cache_without_state_directory_does_nothing() -> None:
    async def test() -> None:
        cache = NetmapCache(ProfileData(None), FakeClock(), PathsDouble(), lambda: [], asyncio.get_running_loop())
        cache.keep("ab12", prefs(), netmap())
        assert cache.load("ab12", prefs()) is None
        cache.close()

    run(test)


def test_cache_disk_that_refuses_costs_a_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        (tmp_path / "profile-data").write_text("a file where a directory belongs")
        bench = Bench(tmp_path)
        bench.cache.keep("ab12", prefs(), netmap())
        bench.cache.close()
        assert [r.getMessage() for r in caplog.records] == ["netmap_not_kept"]
        assert bench.cache.load("ab12", prefs()) is None

    run(test)


def test_cache_wanted_unless_told_otherwise() -> None:
    """MESHD_NETMAP_CACHE, and TS_USE_CACHED_NETMAP as tailscaled calls it."""
    assert cache_wanted({})
    assert not cache_wanted({"TS_USE_CACHED_NETMAP": "false"})
    assert not cache_wanted({"TS_USE_CACHED_NETMAP": "1", "MESHD_NETMAP_CACHE": "0"})
    with pytest.raises(MeshdError, match="TS_USE_CACHED_NETMAP=x: expected on or off"):
        cache_wanted({"TS_USE_CACHED_NETMAP": "x"})
    assert cache_wanted({"MESHD_NETMAP_CACHE": "On"})
    assert not cache_wanted({"MESHD_NETMAP_CACHE": "0"})
    with pytest.raises(MeshdError, match="expected on or off"):
        cache_wanted({"MESHD_NETMAP_CACHE": "perhaps"})


def test_profile_data_of_no_profile_is_removed(tmp_path: Path) -> None:
    """PS-18."""
    for name in ("ab12", "cd34"):
        (tmp_path / "profile-data" / name / "netmap-cache").mkdir(parents=True)
    ProfileData(tmp_path).keep_only(["cd34"])
    assert os.listdir(tmp_path / "profile-data") == ["cd34"]
    assert ProfileData(tmp_path).directory("../x") is None
