"""Two nodes find each other over a relay in this process, on loopback."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.endpoints import EndpointKind
from meshd.node.magicsock import PathPeer
from meshd.wire.control import DERPMap, DERPNode, DERPRegion
from tests.unit.node.pathhost import PathHost, until
from tests.unit.node.relayhost import RelayHost


class Mesh:
    """Relays and nodes of one test."""

    def __init__(self, tmp_path):
        self._tmp_path = tmp_path
        self.relays = []
        self.hosts = []

    async def relay(self, number, **options):
        self.relays.append(await RelayHost(number, self._tmp_path / str(number)).start(**options))
        return self.relays[-1]

    def derp_map(self):
        return DERPMap(regions={relay.number: relay.region() for relay in self.relays})

    def host(self, **options):
        host = PathHost(len(self.hosts) + 1, **options)
        self.hosts.append(host)
        host.magic.set_derp_map(self.derp_map())
        return host

    async def pair(self, **options):
        a, b = self.host(**options), self.host(**options)
        await until(lambda: a.magic.live_relays and b.magic.live_relays)
        return a, b

    def close(self):
        for host in self.hosts:
            host.close()
        for relay in self.relays:
            relay.close()


def run(tmp_path, scenario):
    async def main():
        mesh = Mesh(tmp_path)
        try:
            async with asyncio.timeout(30):
                await scenario(mesh)
        finally:
            mesh.close()
            await asyncio.sleep(0.02)

    asyncio.run(main())


def test_magicsock_stun_gives_endpoint_and_home(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        assert a.magic.home_relay == 900
        await until(lambda: a.endpoints)
        assert a.magic.endpoints[0].kind is EndpointKind.STUN
        assert a.endpoints[0].port == a.sockets.port_v4
        await until(lambda: a.netinfo and a.netinfo[-1].working_udp)
        assert a.netinfo[-1].preferred_derp == 900
        await until(lambda: a.magic.live_relays == 1)

    run(tmp_path, scenario)


def test_magicsock_ping_finds_direct_path(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        await until(lambda: a.endpoints and b.endpoints)
        a.know(b)
        b.know(a)
        outcome = await a.magic.ping(b.key)
        assert outcome is not None
        await until(lambda: a.magic.status(b.key).address is not None)
        direct = await a.magic.ping(b.key)
        assert direct.address.port == b.sockets.port_v4
        assert direct.relay == 0

    run(tmp_path, scenario)


def test_magicsock_peer_without_known_endpoints_becomes_direct_by_call(tmp_path):
    """Only the relay is known at first: CallMeMaybe does the rest."""

    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        a.know(b, endpoints=())
        b.know(a, endpoints=())
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None, 1.0)
        await until(lambda: b.magic.status(a.key).address is not None, 1.0)

    run(tmp_path, scenario)


def test_magicsock_packets_flow_direct_and_back(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        await until(lambda: a.endpoints and b.endpoints)
        a.know(b)
        b.know(a)
        a.send(b, b"hello")
        assert await b.receive() == b"hello"
        b.send(a, b"back")
        assert await a.receive() == b"back"
        await until(lambda: a.magic.status(b.key).address is not None)
        assert a.magic.status(b.key).active
        assert a.magic.status(b.key).last_write is not None

    run(tmp_path, scenario)


def test_magicsock_without_udp_everything_goes_by_relay(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900, stun=False)
        a, b = await mesh.pair(deaf=True)
        a.know(b)
        b.know(a)
        for n in range(20):
            a.send(b, b"%d" % n)
        assert sorted([await b.receive() for _ in range(20)]) == sorted(b"%d" % n for n in range(20))
        outcome = await a.magic.ping(b.key)
        assert (outcome.address, outcome.relay) == (None, 900)
        assert a.magic.status(b.key).address is None
        assert a.magic.relay_code(outcome.relay) == "r900"

    run(tmp_path, scenario)


def test_magicsock_several_relays_udp_blocked_home_within_a_second(tmp_path):
    async def scenario(mesh):
        for number in (1, 2, 3):
            await mesh.relay(number, stun=False)
        a = mesh.host(deaf=True)
        assert a.magic.home_relay == 0
        await until(lambda: a.magic.home_relay, 2.0)
        await until(lambda: a.magic.live_relays, 1.0)
        assert a.netinfo[-1].preferred_derp == a.magic.home_relay

    run(tmp_path, scenario)


def test_magicsock_peer_at_another_home_is_reached_by_its_relay(tmp_path):
    async def scenario(mesh):
        await mesh.relay(1)
        a = mesh.host(deaf=True)
        mesh.relays, first = [], mesh.relays
        await mesh.relay(2)
        b = mesh.host(deaf=True)
        mesh.relays = first + mesh.relays
        for host in (a, b):
            host.magic.set_derp_map(mesh.derp_map())
        await until(lambda: a.magic.live_relays and b.magic.live_relays)
        assert (a.magic.home_relay, b.magic.home_relay) == (1, 2)
        a.know(b)
        b.know(a, home=0)
        outcome = await a.magic.ping(b.key)
        assert outcome.relay == 2
        assert a.magic.live_relays == 2
        b.send(a, b"by the relay it was heard on")
        assert await a.receive() == b"by the relay it was heard on"
        assert b.magic.status(a.key).relay == 2
        assert b.magic.live_relays == 1

    run(tmp_path, scenario)


def test_magicsock_relay_connection_cut_is_made_again(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair(deaf=True)
        a.know(b)
        b.know(a)
        assert await a.magic.ping(b.key) is not None
        a.magic.break_relays()
        await until(lambda: a.magic.live_relays == 0)
        await until(lambda: a.magic.live_relays == 1)
        assert await a.magic.ping(b.key) is not None

    run(tmp_path, scenario)


def test_magicsock_new_key_reconnects_to_the_relay(tmp_path):
    async def scenario(mesh):
        relay = await mesh.relay(900)
        a = mesh.host()
        await until(lambda: a.key.raw in relay.server.active)
        a.private = NodePrivate.generate()
        a.magic.set_private_key(a.private)
        await until(lambda: a.key.raw in relay.server.active)
        a.magic.set_private_key(None)
        await until(lambda: not relay.server.active)

    run(tmp_path, scenario)


def test_magicsock_after_logout_control_is_told_everything_again(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        await until(lambda: a.endpoints and a.netinfo and a.netinfo[-1].working_udp)
        a.magic.set_private_key(None)
        a.endpoints = []
        a.netinfo.clear()
        a.magic.set_private_key(a.private)
        a.magic.set_derp_map(mesh.derp_map())
        await until(lambda: a.endpoints and a.netinfo)
        assert a.netinfo[-1].preferred_derp == 900

    run(tmp_path, scenario)


def test_magicsock_wrong_pin_is_refused(tmp_path):
    async def scenario(mesh):
        relay = await mesh.relay(900)
        relay.pin = "00" * 32
        a = mesh.host()
        await until(lambda: "not the pinned one" in a.magic.relay_links.last_error(900))
        assert not a.magic.live_relays

    run(tmp_path, scenario)


def test_magicsock_rebind_keeps_the_mesh(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        a.know(b)
        b.know(a)
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None)
        a.loop.remove_reader(a.sockets.fd_v4)
        a.magic.rebind()
        a.sockets = a.magic.sockets
        a.loop.add_reader(a.sockets.fd_v4, a._readable)
        assert a.magic.status(b.key).address is None
        await until(lambda: a.magic.status(b.key).address is not None)

    run(tmp_path, scenario)


def test_magicsock_ping_errors(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        with pytest.raises(MeshdError, match="no such peer"):
            await a.magic.ping(NodePrivate.generate().public())

    run(tmp_path, scenario)


def test_magicsock_netcheck_reports(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        report = await a.magic.netcheck()
        assert report.udp
        assert report.preferred_derp == 900
        assert report.global_v4.port == a.sockets.port_v4

    run(tmp_path, scenario)


def test_magicsock_idle_peers_arm_nothing(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        for _ in range(50):
            b.private = NodePrivate.generate()
            a.know(b, endpoints=b.endpoints)
        await asyncio.sleep(0.05)
        assert len(a.magic._paths._timers) == 0
        assert not a.magic._paths.active

    run(tmp_path, scenario)


def test_magicsock_garbage_is_counted_not_raised(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        a.know(b)
        magic = b"TS\xf0\x9f\x92\xac"
        for data in (magic + bytes(100), magic + b.magic.disco_public.raw + bytes(60), magic, b"\x07", b"", b"\0" * 30):
            a.magic.receive_datagram(b"\x7f\0\0\1", 9, data)
        assert a.magic.disco_drops() == {"unknown_sender": 1, "forged": 1}

    run(tmp_path, scenario)


def test_magicsock_relay_regions_are_bounded(tmp_path):
    """Control may send another map every second: the data plane has room for so many regions and no more."""

    async def scenario(mesh):
        a = mesh.host()
        node = DERPNode(name="x", region_id=1, host_name="127.0.0.1", ipv4="127.0.0.1", derp_port=9, stun_port=-1)
        peer = PathPeer(NodePrivate.generate().public(), None, 0, ())
        for number in range(1, 400):
            a.magic.set_derp_map(DERPMap(regions={number: DERPRegion(region_id=number, nodes=(node,))}))
            a.magic.update_peer(replace(peer, home_relay=number))
        assert a.magic.status(peer.node_key).relay == 0
        assert len(a.magic._regions_used) == 250
        a.magic.update_peer(replace(peer, home_relay=2**31))
        assert a.magic.status(peer.node_key).relay == 0

    run(tmp_path, scenario)
