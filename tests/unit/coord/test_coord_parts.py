"""Names, addresses, routes, waiting machines, the database."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import sqlite3
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate
from meshd.coord import database, store
from meshd.coord.addresses import AddressPool
from meshd.coord.cli.output import EXIT_CODES
from meshd.coord.control import ControlService
from meshd.coord.database import Database
from meshd.coord.names import checked_label, is_derived, label, unique_label
from meshd.coord.options import PublicAddress, check_domain
from meshd.coord.pending import LIFETIME_S, MAX_PENDING, PendingRegistrations
from meshd.coord.presence import SWEEP_S, Presence
from meshd.coord.registry import usable_endpoints
from meshd.coord.routes import RouteTable
from meshd.io.listenaddress import parse_listen
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop
from meshd.wire.control import RegisterRequest


@given(st.text(max_size=200))
def test_label_of_any_text_is_a_valid_label(text):
    assert checked_label(label(text)) == label(text)


@given(st.text(max_size=100), st.integers(0, 30))
def test_unique_label_differs_from_all_taken(text, count):
    taken = set()
    for _ in range(count):
        taken.add(unique_label(text, taken))
    assert len(taken) == count
    assert all(checked_label(name) for name in taken)


@given(st.text(max_size=100), st.integers(0, 30))
def test_derived_names_are_known_as_such(text, count):
    taken = set()
    for _ in range(count):
        taken.add(unique_label(text, taken))
    assert all(is_derived(name, text) for name in taken)


@pytest.mark.parametrize("name", ["db-prod", "db-", "db-01", "db-1-2", "dba", "d"])
def test_chosen_names_are_not_derived(name):
    assert not is_derived(name, "db")


def test_addresses_skip_reserved_ones_and_come_back_late():
    pool = AddressPool()
    first = pool.allocate()
    assert first == ("100.64.0.1", "fd7a:115c:a1e0::1")
    pool.release(first[0])
    assert pool.allocate()[0] == "100.64.0.2"
    pool.last = 0x52
    assert pool.allocate() == ("100.64.0.84", "fd7a:115c:a1e0::54")
    pool.last = (36 << 16) + (99 << 8) + 255
    assert pool.allocate()[0] == "100.100.101.0"
    pool.last = (51 << 16) + (91 << 8) + 255
    assert pool.allocate()[0] == "100.115.94.0"
    pool.last = (1 << 22) - 2
    assert pool.allocate()[0] == "100.64.0.1"


def test_routes_carrier_keeps_its_role_while_online():
    table = RouteTable()
    route = ("10.0.0.0/8",)
    assert table.update(2, route, online=True) == {2}
    assert table.update(1, route, online=True) == set()
    assert table.primary(2) == table.carried(2) == route
    assert table.update(2, route, online=False) == {1, 2}
    assert (table.carried(1), table.carried(2)) == (route, ())
    assert table.update(1, route, online=False) == set()
    assert table.update(2, route, online=True) == {1, 2}
    assert table.update(2, (), online=True) == {1, 2}
    assert table.primary(1) == table.carried(1) == route
    assert table.update(1, (), online=False) == {1}
    assert table.carried(1) == ()


def test_routes_exit_routes_are_carried_by_all():
    table = RouteTable()
    for node_id in (1, 2):
        assert table.update(node_id, ("0.0.0.0/0", "::/0"), online=True) == {node_id}
        assert table.carried(node_id) == ("0.0.0.0/0", "::/0")
        assert table.primary(node_id) == ()


def test_pending_list_is_bounded_and_forgets():
    async def whole():
        pending = PendingRegistrations()
        for i in range(MAX_PENDING):
            pending.open(RegisterRequest(node_key=f"nodekey:{i:064x}"), "m", f"10.0.{i % 100}.1", 0.0, 0.0)
        last = RegisterRequest(node_key="nodekey:" + "f" * 64)
        with pytest.raises(MeshdError, match="too many"):
            pending.open(last, "m", "192.0.2.1", 1.0, 0.0)
        assert pending.open(last, "m", "192.0.2.1", LIFETIME_S + 1, 0.0)
        assert len(pending) == 1

    asyncio.run(whole())


def test_database_work_that_fails_leaves_the_others_of_its_batch(tmp_path):
    async def whole():
        database = Database(tmp_path / "db")
        first = database.run(lambda c: store.add_user(c, "a", 1.0))
        double = database.run(lambda c: store.add_user(c, "a", 1.0))
        other = database.run(lambda c: store.add_user(c, "b", 1.0))
        assert ((await first).name, (await other).name) == ("a", "b")
        with pytest.raises(MeshdError, match="already"):
            await double
        await database.close()
        connection = sqlite3.connect(tmp_path / "db")
        assert connection.execute("SELECT name FROM user ORDER BY id").fetchall() == [("a",), ("b",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()

    asyncio.run(whole())


def test_database_of_a_newer_program_and_garbage_are_refused(tmp_path):
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 999")
    newer.close()
    (tmp_path / "garbage").write_bytes(b"this is not a database" * 100)

    async def open_it(name):
        Database(tmp_path / name)

    with pytest.raises(MeshdError, match="format 999"):
        asyncio.run(open_it("newer"))
    with pytest.raises(MeshdError, match="cannot use the database") as caught:
        asyncio.run(open_it("garbage"))
    assert caught.value.code == "config"


def test_database_on_a_full_disk_is_no_mistake_in_the_settings(tmp_path, monkeypatch):
    """A service manager tries again what another status tells of."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def open_it():
        Database(tmp_path / "db")

    monkeypatch.setattr(database.os, "open", full)
    with pytest.raises(MeshdError, match="No space left") as caught:
        asyncio.run(open_it())
    assert caught.value.code not in EXIT_CODES


def test_endpoints_that_peers_cannot_use_are_left_out():
    assert usable_endpoints(["[fe80::1]:1", "[FE80::1%2]:1", "1.2.3.4:5", "[2001:db8::1]:6"]) == (
        "1.2.3.4:5",
        "[2001:db8::1]:6",
    )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "x",
        "http://",
        "http://h/path",
        "http://h:99999",
        "http://u@h",
        "",
        "http://:pw@h",
        "http://h:0",
        "http://bücher.example",
        "http://a b",
        "http://*:8080",
        "http://10.0.0.300",
        "http://[fe80::1%25lo]:80",
    ],
)
def test_url_that_is_not_an_address_is_refused(url):
    with pytest.raises(MeshdError):
        PublicAddress.parse(url)


def test_url_and_listen_forms():
    assert PublicAddress.parse("https://mesh.example/").port == 443
    address = PublicAddress.parse("http://[2001:db8::1]:8080")
    assert (address.host, address.port, address.is_v6) == ("2001:db8::1", 8080, True)
    assert parse_listen("[::]:80") == ("::", 80)
    assert parse_listen(":80") == ("", 80)
    for bad in ("80", "::1:80", "h:", "h:70000"):
        with pytest.raises(MeshdError):
            parse_listen(bad)
    assert check_domain("Mesh.Internal.") == "mesh.internal"
    with pytest.raises(MeshdError):
        check_domain("a..b")


def test_presence_sweep_goes_on_after_any_failure_and_complains_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """A fault with one node must not leave the others online for ever."""

    class Network:
        nodes: ClassVar[dict[int, object]] = {}

    class Registry:
        network = Network()

        async def save(self, *nodes: object) -> None:
            assert not nodes

    clock = FakeClock()
    loop = FakeTimeLoop(clock)

    async def body() -> None:
        presence = Presence(Registry(), 60.0)  # type: ignore[arg-type]
        sweeps: list[float] = []

        async def sweep(now: float, wall: float) -> None:
            sweeps.append(now)
            raise KeyError("odd")

        presence.sweep = sweep  # type: ignore[method-assign]
        presence.start()
        await asyncio.sleep(SWEEP_S * 70 + 1)
        await presence.close()
        assert len(sweeps) == 70

    try:
        loop.run(body())
    finally:
        loop.close()
    assert [r.getMessage() for r in caplog.records].count("sweep_failed") == 2


def test_control_request_that_is_reset_before_it_began_leaves_nothing_behind(recwarn: pytest.WarningsRecorder) -> None:
    """A client that opens and resets a stream in one go costs no line of the log."""
    nothing: Any = SimpleNamespace(network=SimpleNamespace(by_node_key={}))

    async def run() -> None:
        service = ControlService(nothing, nothing, nothing, nothing, nothing)
        stream: Any = SimpleNamespace(path="/machine/map", method="POST", body=bytearray(b"{}"), on_closed=None)
        service.handle(MachinePrivate.generate().public(), 113, "192.0.2.1", stream)
        stream.on_closed()
        await asyncio.gather(*service._tasks, return_exceptions=True)

    asyncio.run(run())
    gc.collect()
    assert [str(w.message) for w in recwarn] == []
