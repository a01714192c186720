"""What nodes tell of themselves: one spelling of everything, and nothing that a peer could not read."""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec
import pytest

from meshd.base.keys import NodePrivate
from meshd.coord import store
from meshd.coord.database import Database
from meshd.coord.intake import usable_hostinfo, usable_routes
from meshd.coord.network import Network
from meshd.coord.policysource import PolicySource
from meshd.coord.records import NodeRecord
from meshd.coord.registry import Registry, usable_endpoints
from meshd.testing.controlmachine import RequestFailed
from meshd.wire.control import (
    ZERO_NODE_KEY,
    DERPAdmitRequest,
    Hostinfo,
    Location,
    NetInfo,
    encode,
)

UNREADABLE = ("[1:2:3]:1", "[1::2::3]:1", "[12345::]:1", "[::1:]:1", "[1:2:3:4:5:6:7:8:9]:1")


def upper(key: str) -> str:
    prefix, _, digits = key.partition(":")
    return f"{prefix}:{digits.upper()}"


@pytest.mark.parametrize("text", UNREADABLE)
def test_intake_unreadable_endpoint_is_left_out(text):
    assert usable_endpoints(["192.0.2.1:1", text]) == ("192.0.2.1:1",)


def test_intake_endpoints_are_written_one_way():
    assert usable_endpoints(["[2001:DB8:0::0001]:1", "[::ffff:192.0.2.1]:2"]) == ("[2001:db8::1]:1", "192.0.2.1:2")
    assert len(usable_endpoints(f"192.0.2.1:{port}" for port in range(1000))) == 64


def test_intake_routes_keep_their_order_and_lose_doubles_and_host_bits():
    told = ("10.2.0.0/16", "10.0.0.1/8", "1:2:3/64", "FD00:0::/64", "::/0", "10.2.0.0/16", "fd00::/64")
    assert usable_routes(told) == ("10.2.0.0/16", "fd00::/64", "::/0")


def test_intake_numbers_that_small_machines_cannot_read_are_left_out():
    info = Hostinfo(net_info=NetInfo(preferred_derp=2**40, link_type="wifi"), location=Location(priority=-(2**40)))
    usable = usable_hostinfo(info)
    assert usable.net_info == NetInfo(link_type="wifi")
    assert usable.location == Location()


def test_intake_unreadable_addresses_of_one_client_reach_nobody(run_coord):
    """Genuine clients throw the whole map away for one bad address, again and again."""

    async def scenario(coord):
        observer, evil = await coord.joined("observer"), await coord.machine("evil")
        evil.hostinfo = msgspec.structs.replace(evil.hostinfo, routable_ips=("1:2:3/64",))
        assert not (await evil.register(coord.join_key)).error
        reader = await observer.stream()
        assert (await reader.next()).peers[0].hostinfo.routable_ips == ()
        evil.endpoints = (*UNREADABLE, "[2001:db8::1]:1")
        evil.hostinfo = msgspec.structs.replace(evil.hostinfo, routable_ips=("1:2:3/64", "10.0.0.1/8", "10.0.0.0/8"))
        await evil.update()
        message = await reader.next()
        while not any(peer.endpoints for peer in message.peers_changed):
            message = await reader.next()
        (peer,) = message.peers_changed
        assert peer.endpoints == ("[2001:db8::1]:1",)
        assert peer.hostinfo.routable_ips == ("10.0.0.0/8",)

    run_coord(scenario)


def test_intake_version_that_small_machines_cannot_read_is_refused(run_coord):
    async def scenario(coord):
        machine = await coord.joined()
        with pytest.raises(RequestFailed) as caught:
            await machine.update(version=2**40)
        assert caught.value.status == 400

    run_coord(scenario)


def test_intake_foreign_node_key_in_upper_case_is_the_same_key(run_coord):
    async def scenario(coord):
        owner = await coord.joined("owner")
        key = upper(owner.node.public().text())
        thief = await coord.machine("thief")
        answer = await thief.register(coord.join_key, node_key=key)
        assert answer.error == "node exists with a different machine key"
        with pytest.raises(RequestFailed) as caught:
            await thief.update(node_key=key)
        assert caught.value.status == 404
        assert len(coord.service.network.nodes) == 1

    run_coord(scenario)


def test_intake_own_keys_in_upper_case_are_understood(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        old = machine.node.public().text()
        assert not (await machine.register(coord.join_key, node_key=upper(old))).error
        await machine.update(node_key=upper(old), disco_key=upper(machine.disco.public().text()))
        (node,) = coord.service.network.nodes.values()
        assert (node.node_key, node.disco_key) == (old, machine.disco.public().text())
        machine.node = NodePrivate.generate()
        assert not (await machine.register(coord.join_key, old_node_key=upper(old))).error
        assert list(coord.service.network.nodes) == [node.id]
        question = encode(DERPAdmitRequest(node_public=upper(machine.node.public().text())))
        reader, writer = await asyncio.open_connection("127.0.0.1", coord.port)
        writer.write(b"POST /verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(question) + question)
        assert (await reader.read()).endswith(b'{"Allow":true}')
        writer.close()

    run_coord(scenario)


def _stored(number: int, node_key: str) -> NodeRecord:
    return NodeRecord(
        number,
        f"mkey:{number:064x}",
        node_key,
        1,
        f"node-{number}",
        f"100.64.0.{number}",
        f"fd7a:115c:a1e0::{number}",
        0.0,
        disco_key=upper(f"discokey:{'ab' * 32}"),
        hostinfo=Hostinfo(routable_ips=("10.0.0.1/8", "10.0.0.0/8")),
        endpoints=("[1:2:3]:1", "192.0.2.1:1"),
        endpoint_types=(1, 2),
        approved_routes=("10.0.0.1/8", "10.0.0.0/8"),
    )


def test_intake_rows_of_an_older_server_are_put_right(tmp_path):
    """Nodes that had got in before must not go on breaking maps, or hold the key of another node."""
    key = f"nodekey:{'ab' * 32}"

    def fill(connection: sqlite3.Connection) -> None:
        store.add_user(connection, "u", 0.0)
        for node in (_stored(1, upper(key)), _stored(2, key), _stored(3, upper(ZERO_NODE_KEY[:-2] + "cd"))):
            store.add_node(connection, store.node_row(node))

    async def whole() -> None:
        database = Database(tmp_path / "db")
        await database.run(fill)
        registry = Registry(Network(), database, PolicySource())
        await registry.load()
        nodes = registry.network.nodes
        assert {node.id: node.node_key for node in nodes.values()} == {2: key, 3: ZERO_NODE_KEY[:-2] + "cd"}
        assert [node.id for node in await database.run(store.load_nodes)] == [2, 3]
        node = nodes[2]
        assert node.disco_key == f"discokey:{'ab' * 32}"
        assert (node.endpoints, node.endpoint_types) == (("192.0.2.1:1",), ())
        assert node.hostinfo.routable_ips == node.approved_routes == node.usable_routes == ("10.0.0.0/8",)
        await database.close()

    asyncio.run(whole())
