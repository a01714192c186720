"""What a stranger may make the coordination server keep, and show."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.coord import admin, store
from meshd.coord import pending as pending_module
from meshd.coord.cli.output import print_table
from meshd.coord.control import MAX_ANSWERS, MAX_MAP_BYTES, MAX_REGISTER_BYTES
from meshd.coord.pending import DECIDED_LIFETIME_S, MAX_PENDING, MAX_PER_SOURCE, MAX_WAITERS, PendingRegistrations
from meshd.io.http.h2server import H2Stream
from meshd.testing import controlmachine
from meshd.testing.controlmachine import RequestFailed
from meshd.wire.control import Hostinfo, RegisterRequest, encode


@pytest.mark.parametrize(
    ("sources", "elsewhere"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8::{:x}", "2001:db8:0:1::1"),
        ("fe80::{:x}%eth0", "fe80:0:0:1::1"),
    ],
)
def test_pending_list_counts_a_whole_ipv6_network_as_one_source(sources, elsewhere):
    """Any host has 2^64 addresses; with each of them as a source of its own, one could fill the list for everybody."""

    async def scenario():
        pending = PendingRegistrations()
        for i in range(MAX_PER_SOURCE):
            pending.open(RegisterRequest(node_key=f"nodekey:{i:064x}"), "m", sources.format(i), 0.0, 0.0)
        late = RegisterRequest(node_key="nodekey:" + "f" * 64)
        with pytest.raises(MeshdError, match="too many machines"):
            pending.open(late, "m", sources.format(9999), 0.0, 0.0)
        assert pending.open(late, "m", elsewhere, 0.0, 0.0)

    asyncio.run(scenario())


def _fill(pending, source_ip, wait_end=None):
    for i in range(MAX_PER_SOURCE):
        entry = pending.open(RegisterRequest(node_key=f"nodekey:{i:064x}"), "m", source_ip, 0.0, 0.0)
        if wait_end is not None:
            pending.decide(entry, 0.0, refused=wait_end)
    return RegisterRequest(node_key="nodekey:" + "f" * 64)


@pytest.mark.parametrize("refused", ["", "an administrator refused this machine"])
def test_pending_list_counts_only_machines_that_still_wait(monkeypatch, refused):
    """The 65th machine of an office was told to try again later, and nobody was waiting."""

    async def scenario():
        for everybody in (MAX_PENDING, MAX_PER_SOURCE):
            monkeypatch.setattr(pending_module, "MAX_PENDING", everybody)
            pending = PendingRegistrations()
            late = _fill(pending, "192.0.2.1", refused)
            assert pending.open(late, "m", "192.0.2.1", 1.0, 0.0)
            (entry,) = pending.all(1.0)
            assert entry.request is late

    asyncio.run(scenario())


def test_pending_list_forgets_early_what_is_decided_and_nobody_waits_for():
    async def scenario():
        pending = PendingRegistrations()
        _fill(pending, "192.0.2.1", "")
        assert len(pending) == MAX_PER_SOURCE
        (first, *_) = pending._by_id.values()
        assert pending.get(first.id, DECIDED_LIFETIME_S - 1.0) is first
        assert pending.get(first.id, DECIDED_LIFETIME_S) is None
        assert len(pending) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("source_ip", ["127.0.0.1", "::1"])
def test_pending_list_has_room_for_all_that_a_local_proxy_brings(source_ip):
    async def scenario():
        pending = PendingRegistrations()
        assert pending.open(_fill(pending, source_ip), "m", source_ip, 0.0, 0.0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "limit"), [("/machine/register", MAX_REGISTER_BYTES), ("/machine/map", MAX_MAP_BYTES)]
)
def test_request_larger_than_any_honest_one_is_refused(run_coord, path, limit):
    async def scenario(coord):
        machine = await coord.machine()
        body = json.dumps({"Version": 113, "Hostinfo": {"Hostname": "x" * limit}}).encode()
        with pytest.raises(RequestFailed) as caught:
            await machine.request(path, body)
        assert caught.value.status == 400

    run_coord(scenario)


def test_table_shows_control_characters_of_a_machine_that_waits(capsys):
    print_table(["HOSTNAME"], [["evil\x1b[2J\r\nok"]])
    assert capsys.readouterr().out.splitlines() == ["HOSTNAME", "evil\ufffd[2J\ufffd\ufffdok"]


def test_deleted_node_is_not_brought_back_by_what_was_on_its_way(run_coord):
    """Else a machine that floods the server with updates while it is deleted is a member again after a restart."""

    async def scenario(coord):
        machine = await coord.joined("gone")
        registry = coord.service._registry
        (node,) = coord.service.network.nodes.values()
        deleting = asyncio.ensure_future(registry.delete(node))
        await asyncio.sleep(0)
        saving = [asyncio.ensure_future(registry.save(node)) for _ in range(3)]
        again = asyncio.ensure_future(machine.register(coord.join_key))
        await asyncio.gather(deleting, *saving)
        answer = await again
        stored = await registry.database.run(store.load_nodes)
        assert node.id not in {row.id for row in stored}
        assert node.id not in coord.service.network.nodes
        assert [row.id for row in stored] == ([] if answer.error else list(coord.service.network.nodes))

    run_coord(scenario)


def test_join_that_fails_gives_name_and_address_back(run_coord):
    async def scenario(coord):
        registry, network = coord.service._registry, coord.service.network

        def fail(node):
            raise ValueError("odd")

        approved, registry._approved = registry._approved, fail
        machine = await coord.machine("web")
        for _ in range(3):
            with pytest.raises(RequestFailed):
                await machine.register(coord.join_key)
        assert network.names == set()
        assert network.addresses._used == set()
        registry._approved = approved
        assert not (await machine.register(coord.join_key)).error
        assert network.names == {"web"}

    run_coord(scenario)


def test_node_is_found_by_its_number_before_a_machine_of_that_name(run_coord):
    """Else deleting node 3 deletes whoever has chosen the host name 3."""

    async def scenario(coord):
        for name in ("3", "first", "web"):
            await coord.joined(name)
        for wanted in ("3", "n3"):
            found = await coord.admin("nodes.rename", node=wanted, name="web")
            assert (found["id"], found["hostname"]) == (3, "web")

    run_coord(scenario)


def test_node_named_like_the_stable_id_of_another_is_not_guessed(run_coord):
    """Hosts are called n1, n2, n3; deleting one of them deleted the machine that joined as the second."""

    async def scenario(coord):
        for name in ("n2", "n1", "n3"):
            await coord.joined(name)
        for wanted in ("n1", "n2"):
            with pytest.raises(MeshdError, match="stable id of another one") as refused:
                await coord.admin("nodes.delete", node=wanted)
            assert refused.value.code == "conflict"
        assert len(coord.service.network.nodes) == 3
        await coord.admin("nodes.delete", node="n3")
        await coord.admin("nodes.delete", node="1")
        assert [node.name for node in coord.service.network.nodes.values()] == ["n1"]
        await coord.admin("nodes.delete", node="n1")
        assert not coord.service.network.nodes

    run_coord(scenario)


def test_two_machines_with_one_node_key_second_is_refused(run_coord):
    async def scenario(coord):
        registry = coord.service._registry

        def join(machine_key):
            return registry.join(
                machine_key=machine_key,
                node_key="nodekey:" + "ab" * 32,
                hostinfo=Hostinfo(hostname="same"),
                version=113,
                user_id=1,
                tags=(),
                method="authkey",
                auth_key_id=None,
                ephemeral=False,
                expiry=None,
                existing=None,
                admit=lambda connection: None,
            )

        outcomes = await asyncio.gather(join("mkey:" + "1" * 64), join("mkey:" + "2" * 64), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["MeshdError", "NodeRecord"]
        assert len(coord.service.network.nodes) == 1

    run_coord(scenario)


@pytest.fixture
def served(monkeypatch):
    """The requests that the server got, in order."""
    streams = []
    init = H2Stream.__init__

    def remember(stream, *args):
        init(stream, *args)
        streams.append(stream)

    monkeypatch.setattr(H2Stream, "__init__", remember)
    return streams


async def twin_that_takes_nothing(coord, monkeypatch, machine):
    """Another connection of that machine; no byte of an answer's body may come through it."""
    monkeypatch.setattr(controlmachine, "_WINDOW", 0)
    monkeypatch.setattr("h2.connection.H2Connection.increment_flow_control_window", lambda *args, **named: None)
    return await coord.machine(like=machine)


async def until(condition):
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_maps_that_a_node_does_not_read_are_few(run_coord, served, monkeypatch):
    """Else one node fills the memory with whole maps."""

    async def scenario(coord):
        twin = await twin_that_takes_nothing(coord, monkeypatch, await coord.joined())
        del served[:]
        for _ in range(12):
            twin.send("/machine/map", encode(twin.map_request(stream=False)))
        await until(lambda: len(served) == 12 and sum(stream.closed for stream in served) == 12 - MAX_ANSWERS)
        assert sum(stream.unsent > 0 for stream in served) == MAX_ANSWERS
        await twin.close()
        await until(lambda: not coord.service._control._answers)

    run_coord(scenario)


@pytest.mark.parametrize("how", ["superseded", "deleted", "rekeyed"])
def test_map_stream_that_is_over_keeps_nothing_unsent(run_coord, served, monkeypatch, how):
    async def scenario(coord):
        twin = await twin_that_takes_nothing(coord, monkeypatch, await coord.joined())
        del served[:]
        body = encode(twin.map_request(stream=True))
        twin.send("/machine/map", body)
        await until(lambda: served and served[0].unsent)
        (node,) = coord.service.network.nodes.values()
        if how == "superseded":
            twin.send("/machine/map", body)
        elif how == "deleted":
            await coord.admin("nodes.delete", node=node.name)
        else:
            coord.service._control.node_rekeyed(node, node.node_key)
        await until(lambda: served[0].closed)
        assert not served[0].unsent

    run_coord(scenario)


def test_followups_that_wait_are_few_and_their_bodies_are_not_kept(run_coord, served):
    """Anybody may send them, and they wait for as long as an administrator thinks."""

    async def scenario(coord):
        machine = await coord.machine()
        url = (await machine.register()).auth_url
        del served[:]
        waiting = [asyncio.create_task(machine.register(followup=url)) for _ in range(12)]
        await until(lambda: len(served) == 12 and sum(stream.closed for stream in served) == 12 - MAX_WAITERS)
        assert not any(stream.body for stream in served)
        for refused in waiting[:-MAX_WAITERS]:
            with pytest.raises(RequestFailed) as caught:
                await refused
            assert caught.value.status == 429
        await coord.admin("nodes.approve", id=url)
        for answer in await asyncio.gather(*waiting[-MAX_WAITERS:]):
            assert answer.machine_authorized

    run_coord(scenario)


def test_followup_of_a_machine_that_hung_up_waits_no_longer(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        url = (await machine.register()).auth_url
        machine.send(
            "/machine/register",
            encode(RegisterRequest(version=113, node_key=machine.node.public().text(), followup=url)),
        )
        (entry,) = coord.service._control._registrar.pending._by_id.values()
        await until(lambda: entry.waiters)
        await machine.close()
        await until(lambda: not entry.waiters)

    run_coord(scenario)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("nodes.rename", {"name": "db"}),
        ("nodes.tag", {"tags": ["tag:web"]}),
        ("nodes.approve-routes", {"routes": ["10.0.0.0/8"]}),
        ("nodes.expire", {}),
        ("nodes.delete", {}),
        ("authkeys.create", {}),
    ],
)
def test_command_that_cannot_be_stored_changes_nothing(run_coord, op, args):
    """The administrator was told of a failure, and the change held until the next start."""

    async def scenario(coord):
        await coord.joined("web")
        (before,) = await coord.admin("nodes.list")
        database = coord.service._database
        database._connection.execute("PRAGMA query_only = 1")
        for _ in range(2):
            with pytest.raises(MeshdError, match="the database could not be used") as caught:
                await coord.admin(op, node="1", **args)
            assert caught.value.code == "storage"
        database._connection.execute("PRAGMA query_only = 0")
        assert await coord.admin("nodes.list") == [before]
        await coord.admin(op, node="1", **args)

    run_coord(scenario)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE node SET hostinfo = '{'",
        "UPDATE node SET tags = 'x'",
        "UPDATE node SET v4 = 'x'",
        "UPDATE node SET node_key = 'x'",
        "UPDATE setting SET value = 'x'",
        "UPDATE secret SET value = x'00'",
        "DROP TABLE node",
    ],
)
def test_damaged_database_is_told_at_the_start(options, running, damage):
    async def scenario():
        async with running(options) as coord:
            await coord.joined("web")
            await coord.service._database.run(lambda connection: connection.execute(damage).fetchall())
        with pytest.raises(MeshdError, match="database") as caught:
            async with running(options):
                pass
        assert "restore a copy" in caught.value.hint

    asyncio.run(scenario())


def test_start_that_fails_leaves_no_auth_key(options, running):
    """A server that a service manager started again and again left thousands."""

    async def scenario():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            for _ in range(2):
                with pytest.raises(MeshdError, match="cannot listen"):
                    async with running(replace(options, listen_port=taken.getsockname()[1])):
                        pass
        async with running(options) as coord:
            assert len(await coord.admin("authkeys.list")) == 1

    asyncio.run(scenario())


def test_command_whose_answer_comes_too_late_is_carried_out_to_its_end(run_coord, options, monkeypatch):
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT_S", 0.1)

    async def scenario(coord):
        await coord.joined("web")
        database, go_on = coord.service._database, asyncio.Event()
        run = database.run

        async def late(work):
            result = await run(work)
            await go_on.wait()
            return result

        coord.service._registry.database.run = late
        reader, writer = await asyncio.open_unix_connection(str(options.state_dir / "admin.sock"))
        writer.write(b'{"op":"nodes.delete","args":{"node":"1"}}\n')
        assert await reader.read() == b""
        writer.close()
        coord.service._registry.database.run = run
        go_on.set()
        await asyncio.sleep(0.05)
        assert not coord.service.network.nodes

    run_coord(scenario)


def test_nodes_get_their_maps_while_nothing_can_be_stored(run_coord, caplog):
    """The stream was refused, as often as a node had something new to tell."""

    async def scenario(coord):
        machine = await coord.joined("web")
        coord.service._database._connection.execute("PRAGMA query_only = 1")
        machine.endpoints = ("192.0.2.1:41641",)
        assert (await (await machine.stream()).next()).node.name == "web.mesh.internal."
        await machine.update(endpoints=("192.0.2.2:41641",))
        (node,) = coord.service.network.nodes.values()
        assert node.endpoints == ("192.0.2.2:41641",)
        assert [record.getMessage() for record in caplog.records].count("not_stored") == 2

    run_coord(scenario)
