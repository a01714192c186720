"""Two nodes find each other over a relay in this process, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from msgspec.structs import replace

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.endpoints import EndpointKind
from meshd.core.relaymap import RelayMap
from meshd.io.udp import UdpSockets
from meshd.node import magicsock, restun
from meshd.node.magicsock import PathPeer
from meshd.node.pathswitches import PathSwitches
from meshd.wire.control import DERPMap, DERPNode, DERPRegion
from meshd.wire.wireguard import MESSAGE_INITIATION
from tests.unit.node.pathhost import PathHost, loopback_socket, until
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


def test_magicsock_home_relay_that_cannot_be_reached_is_told(tmp_path):
    """SM-02: a node goes on without it; its peers may be in the same network."""

    async def scenario(mesh):
        relay = await mesh.relay(900)
        told, derp_map = [], mesh.derp_map()
        reached = mesh.host()
        await until(lambda: reached.magic.live_relays == 1)
        assert not reached.magic.home_relay_fails
        relay.close()
        mesh.relays.clear()
        alone = mesh.host()
        alone.magic._on_relays = lambda: told.append(alone.magic.home_relay_fails)
        alone.magic.set_derp_map(derp_map)
        await until(lambda: any(told))
        assert alone.magic.home_relay_fails
        assert alone.magic.live_relays == 0

    run(tmp_path, scenario)


def test_magicsock_netcheck_from_an_address_and_port(tmp_path):
    """cli:netcheck --bind-address, --bind-port: the probes leave from there; the node itself learns nothing of it."""

    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        await until(lambda: a.netinfo and a.netinfo[-1].working_udp)
        told = list(a.endpoints)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with pytest.raises(MeshdError, match="cannot probe from 127.0.0.1") as refused:
                await a.magic.netcheck((parse_ip("127.0.0.1"), port))
            assert refused.value.code == "invalid"
        report = await a.magic.netcheck((parse_ip("127.0.0.1"), port))
        assert report.udp
        assert str(report.global_v4) == f"127.0.0.1:{port}"
        with pytest.raises(MeshdError, match="cannot probe from 192.0.2.1"):
            await a.magic.netcheck((parse_ip("192.0.2.1"), 0))
        assert a.endpoints == told
        assert (await a.magic.netcheck((None, 0))).udp

    run(tmp_path, scenario)


def test_magicsock_firewall_mode_is_told_when_it_changes(tmp_path):
    """RT-13."""

    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        await until(lambda: a.netinfo and a.netinfo[-1].working_udp)
        assert a.netinfo[-1].firewall_mode == ""
        told = len(a.netinfo)
        a.magic.set_firewall_mode("nft")
        a.magic.set_firewall_mode("nft")
        assert a.netinfo[-1].firewall_mode == "nft"
        assert len(a.netinfo) == told + 1
        assert a.magic.ports() == [a.sockets.port_v4]

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


def test_magicsock_rotated_disco_key_is_used_with_the_same_peers(tmp_path):
    """api:debug-rotate-disco-key: peers that hear of the new key go on; what is sealed with the old one is dropped."""

    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        await until(lambda: a.endpoints and b.endpoints)
        a.know(b)
        b.know(a)
        await a.magic.ping(b.key)
        before = a.magic.disco_public
        a.magic.rotate_disco()
        assert a.magic.disco_public != before
        assert a.magic.disco_public == a.magic.disco_private.public()
        b.know(a)
        assert await a.magic.ping(b.key) is not None
        assert await b.magic.ping(a.key) is not None
        await until(lambda: b.magic.status(a.key).address is not None)

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


def test_magicsock_wireguard_only_peer_is_reached_at_the_endpoint_that_answers(tmp_path):
    """EX-06: an exit node that is no Tailscale node has no relay and answers no pings."""

    async def scenario(mesh):
        await mesh.relay(900)
        a, b = mesh.host(), mesh.host()
        silent = loopback_socket()
        a.know_wireguard_only(b, AddrPort(parse_ip("127.0.0.1"), silent.getsockname()[1]), b.udp_address)
        b.know_wireguard_only(a)
        a.send(b, b"hello")
        assert await b.receive() == b"hello"
        b.send(a, b"back")
        assert await a.receive() == b"back"
        status = a.magic.status(b.key)
        assert (status.address, status.relay, status.active) == (b.udp_address, 0, True)
        assert b.magic.status(a.key).address == a.udp_address
        heard = {silent.recv(2000)[0]}
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.add(silent.recv(2000)[0])
        assert heard == {MESSAGE_INITIATION}
        silent.close()

    run(tmp_path, scenario)


def test_magicsock_wireguard_only_peer_is_answered_where_it_is_heard(tmp_path):
    async def scenario(mesh):
        a, b = mesh.host(), mesh.host()
        silent = loopback_socket()
        a.know_wireguard_only(b, AddrPort(parse_ip("127.0.0.1"), silent.getsockname()[1]))
        b.know_wireguard_only(a, a.udp_address)
        b.send(a, b"hello")
        assert await a.receive() == b"hello"
        a.send(b, b"back")
        assert await b.receive() == b"back"
        assert a.magic.status(b.key).address == b.udp_address
        silent.close()

    run(tmp_path, scenario)


def test_magicsock_change_of_the_network_makes_sure_of_relays(tmp_path):
    """Another default route, say: what leaves from an address that is still ours may get nowhere."""

    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        await until(lambda: a.magic.live_relays)
        link = a.magic.relay_links._links[900]
        a.magic.link_changed()
        assert link._client._probe is not None
        await until(lambda: link._client._probe is None)
        assert link.is_open

    run(tmp_path, scenario)


def test_magicsock_new_kind_of_address_disturbs_no_path(tmp_path):
    """Loopback is no candidate beside others, yet it did not go away."""

    async def scenario(mesh):
        a = mesh.host()
        rebound, own = [], [parse_ip("127.0.0.1")]
        a.magic._local_addresses = lambda: own
        a.magic.rebind = lambda: rebound.append(True)
        own.append(parse_ip("192.0.2.1"))
        a.magic.link_changed()
        assert not rebound
        own.pop()
        a.magic.link_changed()
        assert rebound

    run(tmp_path, scenario)


def test_magicsock_wireguard_only_peer_is_followed_by_its_data(tmp_path):
    """EX-06: it may be somewhere else minutes before its next handshake."""

    async def scenario(mesh):
        a, b = mesh.host(), mesh.host()
        a.know_wireguard_only(b, b.udp_address)
        b.know_wireguard_only(a, a.udp_address)
        a.send(b, b"hello")
        assert await b.receive() == b"hello"
        b.move()
        b.send(a, b"moved")
        assert await a.receive() == b"moved"
        await until(lambda: a.magic.status(b.key).address == b.udp_address)
        a.send(b, b"found")
        assert await b.receive() == b"found"

    run(tmp_path, scenario)


def test_magicsock_peer_that_becomes_wireguard_only_loses_its_relay(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        a.know(b, endpoints=())
        a.send(b, b"lost")
        assert a.magic.status(b.key).relay == 900
        a.know_wireguard_only(b, b.udp_address)
        b.know_wireguard_only(a)
        assert a.magic.status(b.key).relay == 0
        a.engine.greet(b.key)
        await until(lambda: b.magic.status(a.key).address == a.udp_address)

    run(tmp_path, scenario)


def test_magicsock_relays_only_holds_for_wireguard_only_peers(tmp_path):
    async def scenario(mesh):
        a, b = mesh.host(switches=PathSwitches(relays_only=True)), mesh.host()
        a.know_wireguard_only(b, b.udp_address)
        b.know_wireguard_only(a, a.udp_address)
        a.send(b, b"no")
        b.send(a, b"no")
        await until(lambda: a.engine.peer_status(b.key).rx_bytes)
        assert a.magic.status(b.key).address is None
        assert b.engine.peer_status(a.key).rx_bytes == 0

    run(tmp_path, scenario)


def test_magicsock_relays_only_takes_and_gives_no_direct_path(tmp_path):
    """Also not to a peer without the switch, which tries: it gets no answer."""

    async def scenario(mesh):
        await mesh.relay(900)
        a, b = mesh.host(switches=PathSwitches(relays_only=True)), mesh.host()
        await until(lambda: a.magic.live_relays and b.magic.live_relays)
        await until(lambda: a.endpoints and b.endpoints)
        a.know(b)
        b.know(a)
        for n in range(5):
            a.send(b, b"%d" % n)
            assert await b.receive() == b"%d" % n
            b.send(a, b"%d" % n)
            assert await a.receive() == b"%d" % n
        first = await b.magic.ping(a.key)
        assert (first.address, first.relay) == (None, 900)
        await asyncio.sleep(0.3)
        for here, there in ((a, b), (b, a)):
            assert here.magic.status(there.key).address is None
        assert a.magic.disco_drops()["relays_only"] > 0

    run(tmp_path, scenario)


def test_magicsock_own_interfaces_are_left_out_when_told(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host(switches=PathSwitches(omit_local=True))
        await until(lambda: a.endpoints)
        assert {e.kind for e in a.magic.endpoints} == {EndpointKind.STUN}

    run(tmp_path, scenario)


class WatchedSockets:
    """Sockets that remember what was sent."""

    def __init__(self, sockets):
        self._sockets = sockets
        self.sent = []

    def __getattr__(self, name):
        return getattr(self._sockets, name)

    def send(self, data, to):
        self.sent.append(data)
        return self._sockets.send(data, to)


def test_magicsock_network_may_forbid_udp_and_allow_it_again(tmp_path):
    """cap:only-tcp-443: nothing leaves over UDP, neither STUN nor disco nor packets, until it is allowed again."""

    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        await until(lambda: a.endpoints and b.endpoints)
        a.know(b)
        b.know(a)
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None)
        a.magic.set_only_tcp(True)
        await until(lambda: a.magic.last_report is not None and not a.magic.last_report.udp)
        watched = a.magic.sockets = WatchedSockets(a.sockets)
        for n in range(3):
            a.send(b, b"%d" % n)
            assert await b.receive() == b"%d" % n
        outcome = await a.magic.ping(b.key)
        assert (outcome.address, outcome.relay) == (None, 900)
        assert watched.sent == []
        a.magic.sockets = a.sockets
        a.magic.set_only_tcp(False)
        await until(lambda: a.magic.last_report is not None and a.magic.last_report.udp)
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None)

    run(tmp_path, scenario)


def test_magicsock_pretended_addresses_are_told(tmp_path):
    """TS_DEBUG_PRETENDPOINT, besides what the configuration file names."""

    async def scenario(mesh):
        await mesh.relay(900)
        pretended, configured = AddrPort.parse("192.0.2.1:7"), AddrPort.parse("192.0.2.2:8")
        a = mesh.host(switches=PathSwitches(pretended=(pretended,)))
        await until(lambda: pretended in a.endpoints)
        a.magic.set_static_endpoints((configured,))
        await until(lambda: {pretended, configured} <= set(a.endpoints))

    run(tmp_path, scenario)


def test_magicsock_answers_over_ipv4_wait_as_long_as_told(tmp_path):
    """TS_DISCO_PONG_IPV4_DELAY: over the relay they do not."""

    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host(switches=PathSwitches(pong_delay_v4_s=0.05))
        b = mesh.host()
        await until(lambda: a.magic.live_relays and b.magic.live_relays and a.endpoints and b.endpoints)
        a.know(b)
        b.know(a)
        await b.magic.ping(a.key)
        await until(lambda: b.magic.status(a.key).address is not None)
        outcome = await b.magic.ping(a.key)
        assert outcome.address is not None
        assert outcome.latency_s >= 0.05

    run(tmp_path, scenario)


def test_magicsock_relays_of_the_environment_replace_those_of_the_network(tmp_path):
    """TS_DEBUG_USE_DERP_ADDR."""

    async def scenario(mesh):
        await mesh.relay(900)
        known = dict(mesh.host().magic.relays.regions)
        only = RelayMap({999: replace(known[900], id=999)})
        a = mesh.host(switches=PathSwitches(relays=only))
        assert set(a.magic.relays.regions) == {999}
        await until(lambda: a.magic.home_relay == 999 and a.magic.live_relays)

    run(tmp_path, scenario)


def test_magicsock_network_may_count_as_up(tmp_path):
    """TS_ASSUME_NETWORK_UP_FOR_TEST: warn:network-status does not come although there is only loopback."""

    async def scenario(mesh):
        await mesh.relay(900)
        assert mesh.host().magic.relay_view().network_up is False
        assert mesh.host(switches=PathSwitches(network_up=True)).magic.relay_view().network_up is True

    run(tmp_path, scenario)


def test_magicsock_background_stun_needs_no_traffic(tmp_path, monkeypatch):
    """cap:debug-always-stun."""
    monkeypatch.setattr(restun, "MIN_S", 0.01)
    monkeypatch.setattr(restun, "SPREAD_S", 0.0)

    async def scenario(mesh):
        await mesh.relay(900)
        a = mesh.host()
        await until(lambda: a.magic.last_report is not None)
        first = a.magic.last_report
        assert set(a.magic.recent_latency) == {900}
        a.magic.set_background_stun(True)
        await until(lambda: a.magic.last_report is not first)
        a.magic.set_background_stun(False)
        assert not a.magic._restun.armed

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


def test_magicsock_close_takes_the_sockets_from_the_plane_before_it_closes_them():
    """Its threads would send to whoever got the descriptor next."""

    async def main():
        host, seen = PathHost(1), []
        host.plane.set_udp = lambda v4, v6: seen.append((v4, v6, host.sockets.v4.fileno() >= 0))
        host.close()
        assert seen == [((), (), True)]
        assert host.sockets.v4.fileno() == -1

    asyncio.run(main())


def test_magicsock_rebind_keeps_the_mesh(tmp_path):
    async def scenario(mesh):
        await mesh.relay(900)
        a, b = await mesh.pair()
        a.know(b)
        b.know(a)
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None)
        a.loop.remove_reader(a.sockets.v4.fileno())
        a.magic.rebind()
        a.sockets = a.magic.sockets
        a.loop.add_reader(a.sockets.v4.fileno(), a._readable)
        assert a.magic.status(b.key).address is None
        await until(lambda: a.magic.status(b.key).address is not None)

    run(tmp_path, scenario)


def test_magicsock_random_port_is_the_networks_wish_before_the_users_choice():
    """cap:randomize-client-port."""

    async def main():
        host = PathHost(1, fixed_port=41641)
        host.loop.remove_reader(host.sockets.v4.fileno())
        asked = []

        def reopen(port):
            asked.append(port)
            return UdpSockets(loopback_socket(), None)

        host.magic._reopen = reopen
        host.magic.set_random_port(False)
        assert [host.magic.set_random_port(True) for _ in range(2)] == [True, False]
        assert asked == [0]
        assert host.magic._endpoints.fixed_port == 0
        any_port = host.magic.sockets.port_v4
        host.magic.rebind()
        assert asked == [0, any_port]
        assert host.magic.set_random_port(False)
        assert asked == [0, any_port, 41641]
        assert host.magic._endpoints.fixed_port == 41641
        host.magic.close()
        free = PathHost(2)
        free.loop.remove_reader(free.sockets.v4.fileno())
        had = free.magic.sockets
        assert not free.magic.set_random_port(True)
        assert free.magic.sockets is had
        free.magic.close()

    asyncio.run(main())


def test_magicsock_without_any_socket_tries_again(monkeypatch):
    """There may be no descriptor left for a moment: the node lives on its relays until there is one."""
    monkeypatch.setattr(magicsock, "REOPEN_S", 0.01)

    async def main():
        host = PathHost(1)
        host.loop.remove_reader(host.sockets.v4.fileno())
        asked = []

        def reopen(port):
            asked.append(port)
            if len(asked) < 5:
                raise MeshdError("too many open files", code="network")
            return UdpSockets(loopback_socket(), None)

        host.magic._reopen = reopen
        port = host.magic.sockets.port_v4
        host.magic.rebind()
        assert host.magic.ports() == []
        host.magic.restun()
        await until(lambda: host.magic.sockets.port_v4)
        assert asked == [port, 0, port, 0, port]
        host.magic.close()

    asyncio.run(main())


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
