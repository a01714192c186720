"""Map streams of a server over real sockets."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.coord import network as change
from meshd.testing.controlmachine import RequestFailed
from meshd.wire.control import Hostinfo, NetInfo


async def until(reader, wanted):
    """The first message for which `wanted` is true."""
    while True:
        message = await reader.next()
        assert message is not None, "the stream ended"
        if wanted(message):
            return message


def test_map_first_message_holds_everything(run_coord):
    async def scenario(coord):
        first = await coord.joined("one")
        await coord.joined("two")
        message = await (await first.stream()).next()
        assert message.node.name == "one.mesh.internal."
        assert message.node.machine_authorized
        assert [peer.name for peer in message.peers] == ["two.mesh.internal."]
        assert message.packet_filters["base"][0].src_ips == ("*",)
        assert message.dns_config.proxied
        assert message.dns_config.routes["mesh.internal"] == ()
        assert message.dns_config.routes["0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"] == ()
        assert {profile.id for profile in message.user_profiles} == {1}
        (region,) = message.derp_map.regions.values()
        assert region.nodes[0].derp_port == 8080
        assert region.nodes[0].cert_name.startswith("sha256-raw:")
        assert message.control_time

    run_coord(scenario)


@pytest.mark.parametrize("zstd", [True, False])
def test_map_new_peer_arrives_as_delta(run_coord, zstd):
    async def scenario(coord):
        first = await coord.joined("one")
        reader = await first.stream(zstd=zstd)
        await reader.next()
        await coord.joined("two")
        message = await until(reader, lambda m: m.peers_changed)
        assert [peer.name for peer in message.peers_changed] == ["two.mesh.internal."]
        assert not message.peers
        assert message.node is None

    run_coord(scenario)


def test_map_lite_update_reaches_peers_as_patch(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        await second.update()
        reader = await first.stream()
        await reader.next()
        # What is still under way about the second node goes out with the third; only then a patch comes alone.
        await coord.joined("three")
        await until(reader, lambda m: 3 in [peer.id for peer in m.peers_changed])
        second.endpoints = ("192.0.2.7:41641", "[fe80::1%eth0]:1", "[fe80::2]:1")
        second.hostinfo = msgspec.structs.replace(second.hostinfo, net_info=NetInfo(preferred_derp=900))
        await second.update()
        message = await until(reader, lambda m: any(patch.endpoints for patch in m.peers_changed_patch))
        (patch,) = message.peers_changed_patch
        assert (patch.node_id, patch.endpoints, patch.derp_region) == (2, ("192.0.2.7:41641",), 900)
        assert not message.peers_changed

    run_coord(scenario)


def test_map_unchanged_lite_update_tells_nobody(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        await second.update()
        reader = await first.stream()
        await reader.next()
        await second.update()
        await coord.joined("three")
        message = await until(reader, lambda m: 3 in [peer.id for peer in m.peers_changed])
        assert not message.peers_changed_patch

    run_coord(scenario)


def test_map_stream_of_peer_makes_it_online(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        reader = await first.stream()
        assert (await reader.next()).peers[0].online is False
        await second.stream()
        message = await until(reader, lambda m: any(p.online for p in (*m.peers_changed_patch, *m.peers_changed)))
        assert message is not None

    run_coord(scenario)


def test_map_deleted_peer_is_removed_and_its_stream_ends(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        reader, doomed = await first.stream(), await second.stream()
        await reader.next()
        await doomed.next()
        await coord.admin("nodes.delete", node="two")
        message = await until(reader, lambda m: m.peers_removed)
        assert message.peers_removed == (2,)
        while await doomed.next() is not None:
            pass
        with pytest.raises(RequestFailed) as caught:
            await second.stream()
        assert caught.value.status == 404

    run_coord(scenario)


def test_map_new_stream_ends_the_old_one(run_coord):
    async def scenario(coord):
        machine = await coord.joined()
        old = await machine.stream()
        await old.next()
        other = await coord.machine(like=machine)
        new = await other.stream()
        assert (await new.next()).node is not None
        while await old.next() is not None:
            pass
        assert coord.service._distributor.streams == 1

    run_coord(scenario)


def test_map_rename_changes_self_and_peer(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        readers = [await first.stream(), await second.stream()]
        for reader in readers:
            await reader.next()
        await coord.admin("nodes.rename", node="two", name="renamed")
        name = "renamed.mesh.internal."
        assert await until(readers[0], lambda m: name in [peer.name for peer in m.peers_changed])
        assert await until(readers[1], lambda m: m.node is not None and m.node.name == name)

    run_coord(scenario)


def test_map_expired_node_sees_nobody_and_peers_see_it_expired(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        readers = [await first.stream(), await second.stream()]
        for reader in readers:
            await reader.next()
        await coord.admin("nodes.expire", node="two")
        seen = await until(readers[0], lambda m: any(peer.expired for peer in m.peers_changed))
        assert seen is not None
        own = await until(readers[1], lambda m: m.peers_removed)
        assert own.peers_removed == (1,)
        assert own.node.expired

    run_coord(scenario)


def test_map_rotated_key_is_told_to_peers(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        reader = await first.stream()
        await reader.next()
        old = second.node.public().text()
        second.node = NodePrivate.generate()
        await second.register(coord.join_key, old_node_key=old)
        key = second.node.public().text()
        message = await until(reader, lambda m: key in [peer.key for peer in m.peers_changed])
        assert message.peers_changed[0].id == 2

    run_coord(scenario)


def test_map_routes_reach_allowed_ips_only_when_approved(run_coord):
    async def scenario(coord):
        first, second = await coord.joined("one"), await coord.joined("two")
        second.hostinfo = Hostinfo(hostname="two", routable_ips=("192.168.7.0/24", "0.0.0.0/0", "::/0"))
        await second.update()
        reader = await first.stream()
        peer = (await reader.next()).peers[0]
        assert peer.allowed_ips == peer.addresses
        await coord.admin("nodes.approve-routes", node="two", all=True)
        message = await until(reader, lambda m: any(peer.primary_routes for peer in m.peers_changed))
        peer = message.peers_changed[0]
        assert set(peer.allowed_ips) - set(peer.addresses) == {"192.168.7.0/24", "0.0.0.0/0", "::/0"}
        assert peer.primary_routes == ("192.168.7.0/24",)

    run_coord(scenario)


def test_map_route_of_an_expired_node_goes_to_one_that_stands_by(run_coord):
    """Nobody can send to a node whose key has ended, even while it is still connected."""

    async def scenario(coord):
        observer = await coord.joined("observer")
        for name in ("first", "second"):
            router = await coord.joined(name)
            router.hostinfo = Hostinfo(hostname=name, routable_ips=("192.168.7.0/24",))
            await (await router.stream()).next()
            await coord.admin("nodes.approve-routes", node=name, all=True)
        first, second = (node for node in coord.service.network.nodes.values() if node.name != "observer")
        routes = coord.service.network.routes
        assert (routes.primary(first.id), routes.primary(second.id)) == (("192.168.7.0/24",), ())
        reader = await observer.stream()
        await reader.next()
        await coord.admin("nodes.expire", node="first")
        await until(reader, lambda m: any(p.primary_routes and p.id == second.id for p in m.peers_changed))
        assert routes.primary(first.id) == ()
        await coord.admin("nodes.expire", node="second")
        await coord.admin("nodes.tag", node="first", tags=["tag:router"])
        assert routes.primary(first.id) == ("192.168.7.0/24",)

    run_coord(scenario)


def test_map_one_shot_request_gets_one_message(run_coord):
    async def scenario(coord):
        from meshd.wire.control import MapResponse, decode, encode
        from meshd.wire.mapframe import MapFrameReader

        machine = await coord.joined()
        body = await machine.request("/machine/map", encode(machine.map_request()))
        (message,) = MapFrameReader(False).feed(body)
        assert decode(MapResponse, message).node.id == 1

    run_coord(scenario)


def test_map_bad_hostnames_never_break_a_map(run_coord):
    async def scenario(coord):
        names = ["", "....", "Ünïcode", "a" * 300, "-x-", "two words", "web", "WEB", "web.lan", "\x00"]
        for name in names:
            await coord.joined(name)
        observer = await coord.joined("observer")
        message = await (await observer.stream()).next()
        labels = [peer.name.split(".")[0] for peer in message.peers]
        assert len(set(labels)) == len(names)
        assert all(0 < len(label) <= 63 and label.strip("-") == label for label in labels)

    run_coord(scenario)


def test_map_slow_reader_gets_the_last_state_once_it_reads(run_coord):
    async def scenario(coord):
        slow, busy = await coord.joined("slow"), await coord.joined("busy")
        reader = await slow.stream()
        await reader.next()
        slow.paused.clear()
        for i in range(300):
            busy.endpoints = tuple(f"192.0.2.{j}:{1000 + i}" for j in range(60))
            await busy.update()
        slow.paused.set()
        last = await until(
            reader,
            lambda m: any("192.0.2.1:1299" in (patch.endpoints or ()) for patch in m.peers_changed_patch),
        )
        assert last is not None

    run_coord(scenario)


def test_map_restart_keeps_nodes_keys_and_addresses(options, running):
    async def whole():
        async with running(options) as coord:
            machine = await coord.joined("kept")
            machine.endpoints = ("192.0.2.9:1",)
            await machine.update()
            (before,) = coord.service.network.nodes.values()
            saved = msgspec.to_builtins(before)
        async with running(options) as coord:
            (after,) = coord.service.network.nodes.values()
            assert {**msgspec.to_builtins(after), "online": False} == {**saved, "online": False}
            again = await coord.machine(like=machine)
            assert (await again.register()).machine_authorized
            other = await coord.joined("new")
            assert (await (await other.stream()).next()).node.addresses[0] == "100.64.0.2/32"

    asyncio.run(whole())


def test_map_deleted_id_and_address_are_not_given_again(options, running):
    async def whole():
        async with running(options) as coord:
            await coord.joined("gone")
            await coord.admin("nodes.delete", node="gone")
        async with running(options) as coord:
            await coord.joined("next")
            (node,) = coord.service.network.nodes.values()
            assert (node.id, node.v4) == (2, "100.64.0.2")

    asyncio.run(whole())


def test_coord_calls_a_node_and_takes_only_that_machines_answer(run_coord):
    """C2N: the request goes out with the map stream, the answer comes over Noise."""

    async def scenario(coord):
        one, two = await coord.joined("one"), await coord.joined("two")
        with pytest.raises(MeshdError, match="not connected"):
            await coord.admin("nodes.call", node="one", path="/echo")
        stream = await one.stream()
        await stream.next()
        asking = asyncio.ensure_future(coord.admin("nodes.call", node="one", path="/echo", method="post", body="hi"))
        while True:
            message = await stream.next()
            assert message is not None
            if message.ping_request is not None:
                break
        ping = message.ping_request
        assert (ping.types, ping.url_is_noise) == ("c2n", True)
        assert ping.payload == b"POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n\r\nhi"
        path = ping.url.removeprefix("https://unused")
        for wrong, where in ((two, path), (one, path[:-1] + "x")):
            with pytest.raises(RequestFailed):
                await wrong.request(where, b"HTTP/1.1 200 OK\r\n\r\nno")
        await one.request(path, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi")
        assert await asking == {"status": 200, "body": "hi"}
        with pytest.raises(RequestFailed):
            await one.request(path, b"HTTP/1.1 200 OK\r\n\r\nagain")
        for bad in ("no-path", "/a b", "/\x00"):
            with pytest.raises(MeshdError, match="not a path"):
                await coord.admin("nodes.call", node="one", path=bad)

    run_coord(scenario)


def test_node_that_was_here_until_the_server_stopped_was_seen_then(options, running):
    """It was last seen when it had joined, maybe months ago."""

    async def scenario():
        async with running(options) as coord:
            machine = await coord.joined("one")
            await (await machine.stream()).next()
            (node,) = coord.service.network.nodes.values()
            node.last_seen = 1000.0
            await coord.service._registry.save(node)
        async with running(options) as coord:
            (node,) = coord.service.network.nodes.values()
            assert time.time() - 60 < node.last_seen <= time.time()

    asyncio.run(scenario())


def test_map_that_cannot_be_made_for_one_node_keeps_nothing_from_the_others(run_coord, caplog):
    """Whoever came after that node never heard of the change."""

    async def scenario(coord):
        first, second, third = [await coord.joined(name) for name in ("one", "two", "three")]
        readers = [await machine.stream() for machine in (first, second, third)]
        for reader in readers:
            await reader.next()
        distributor, network = coord.service._distributor, coord.service.network
        rules = type(distributor.access).rules

        def fails_for_first(access, node):
            return rules(access, node) if node.id != 1 else 1 // 0

        type(distributor.access).rules = fails_for_first
        try:
            distributor.policy_changed()
            network.on_change(2, change.ENDPOINTS)
            await until(readers[2], lambda m: m.peers_changed_patch)
            while await readers[0].next() is not None:
                pass
            assert [stream.node.id for stream in distributor._streams.values()] == [2, 3]
            assert await (await first.stream()).next() is None
            assert distributor.stream_of(1) is None
            assert not (distributor._keepalives.keys() - {2, 3})
            assert 1 in coord.service._presence._leaving
        finally:
            type(distributor.access).rules = rules
        assert (await (await first.stream()).next()).node.name == "one.mesh.internal."
        assert [record.getMessage() for record in caplog.records].count("map_not_made") == 1

    run_coord(scenario)
