"""Paths to all peers: one UDP port per family, the relays, and what decides between them.

Everything that is not bulk traffic comes through here: disco, STUN, handshakes. Bulk traffic takes the path
that was published to the data plane, and comes through here only between data plane and relay.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterable

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, DiscoPublic, NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.base.ranges import DERP_MAGIC_IP
from meshd.core.derpclient import PacketsReceived, PeerGone
from meshd.core.endpoints import Endpoint, local_candidates, thin_out
from meshd.core.healthcheck import RelayView
from meshd.core.homerelay import HomeRelay
from meshd.core.netreport import Report
from meshd.core.path import HEARTBEAT_INTERVAL_S, PathChange
from meshd.core.relayadapter import relay_map
from meshd.core.relaymap import RelayMap, RelayRegion
from meshd.core.wireguardpath import WireGuardOnlyPath
from meshd.io.interfaces import local_addresses as read_local_addresses
from meshd.io.mark import bound_device
from meshd.io.relaydial import measure_https
from meshd.io.udp import UdpSockets, open_udp_sockets
from meshd.node.boundcheck import bound_check
from meshd.node.callqueue import CallQueue
from meshd.node.derp import RelayLinks
from meshd.node.discoping import DiscoPings
from meshd.node.netinfonews import NetInfoNews
from meshd.node.netprobe import NetProber
from meshd.node.ownendpoints import OwnEndpoints
from meshd.node.pathswitches import NOTHING_FORBIDDEN, PathSwitches
from meshd.node.pathtypes import PathPeer, PathPlane, PathStatus, PingOutcome
from meshd.node.peerpaths import PeerPath, PeerPaths
from meshd.node.restun import Restun
from meshd.wire import disco, stun
from meshd.wire.control import DERPMap, NetInfo
from meshd.wire.wireguard import MESSAGE_INITIATION, message_type

__all__ = ["MagicSock", "PathPeer", "PathStatus", "PingOutcome"]

REOPEN_S = 5.0  # until the next try when no socket could be opened
MAX_REGIONS_EVER = 250  # the data plane keeps a queue per region for as long as it lives
HOME_LOST_CHECK_S = 30.0  # between checks while there is no way to the home relay
HANDSHAKE_FRESH_S = 5.0  # WireGuard's REKEY_TIMEOUT: after that its own retry has been sent
_UNREACHABLE = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH))

log = get_logger(__name__)


def _ignore(*_: object) -> None:
    """The default of every callback."""


class MagicSock:
    """The path layer of one node. Create it inside the running loop; ``close`` ends everything it opened.

    ``peer_index`` gives the data plane's number of a peer, or None while it has none. Callbacks:
    ``on_endpoints`` our endpoints changed, ``on_netinfo`` control should hear of our network,
    ``on_handshake`` a WireGuard handshake message came from an address or, by relay, from a peer,
    ``on_relays`` a relay connection opened or closed.
    """

    def __init__(
        self,
        plane: PathPlane,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        sockets: UdpSockets,
        *,
        peer_index: Callable[[NodePublic], int | None],
        on_endpoints: Callable[[list[Endpoint]], None] = _ignore,
        on_netinfo: Callable[[NetInfo], None] = _ignore,
        on_handshake: Callable[[bytes, AddrPort | NodePublic], None] = _ignore,
        on_relays: Callable[[], None] = _ignore,
        random: Callable[[int], bytes] = os.urandom,
        local_addresses: Callable[[], Iterable[IPAddress]] = read_local_addresses,
        way_out: Callable[[], frozenset[IPAddress]] = frozenset,
        address_towards: Callable[[IPAddress], IPAddress | None] = lambda far: None,
        fixed_port: int = 0,
        mark: bool = True,
        links: RelayLinks | None = None,
        reopen: Callable[[int], UdpSockets] | None = None,
        measure: Callable[[RelayRegion], Awaitable[float]] | None = None,
        switches: PathSwitches = NOTHING_FORBIDDEN,
    ) -> None:
        self.sockets = sockets
        self.control_connected = True
        """Set by the backend; the home relay stays while control is unreachable."""
        self._plane = plane
        self._loop = loop
        self._clock = clock
        self._random = random
        self._on_endpoints = on_endpoints
        self._on_handshake = on_handshake
        self._on_relays = on_relays
        self._local_addresses = local_addresses
        self._way_out = way_out
        self._address_towards = address_towards
        self._switches = switches
        self._port = 0  # that we had last, or want
        self._no_socket: asyncio.TimerHandle | None = None
        self._only_tcp = False
        self._background_stun = False
        self._fixed_port = fixed_port  # that the user chose, 0 for any
        self._random_port = False
        per_port = sockets.per_port
        self._reopen = reopen or (lambda port: open_udp_sockets(port, mark=mark, per_port=per_port))
        self._mark = mark
        self._measure = measure or (lambda region: measure_https(region, mark=mark))
        self._private: NodePrivate | None = None
        self._relays = RelayMap()
        self._home = HomeRelay(int.from_bytes(random(4), "big"))
        self._links = links or RelayLinks(loop, clock, self, random=random, mark=mark)
        self._prober = NetProber(
            loop,
            clock,
            lambda: self.sockets,
            self,
            random=random,
            measure=self._measure,
        )
        self._endpoints = OwnEndpoints(
            loop,
            clock,
            lambda: self.sockets,
            self._told_addresses,
            self._endpoints_changed,
            fixed_port=fixed_port,
        )
        self._paths = PeerPaths(
            plane,
            loop,
            clock,
            self,
            random=random,
            peer_index=peer_index,
            relays_only=switches.relays_only,
            pong_delay_v4_s=switches.pong_delay_v4_s,
        )
        self._endpoints.set_configured(switches.pretended)
        self._calls = CallQueue(loop, self._endpoints, self._send_call, self._prober.start)
        self._restun = Restun(loop, random, self._restun_due)
        self._pings = DiscoPings(loop, clock, self._paths)
        self._regions_used: set[int] = set()
        self._news = NetInfoNews(on_netinfo)
        self._preferred_relay = 0
        self._known_addresses = local_candidates(local_addresses())
        self._device = bound_device()
        self._sources = way_out()

    def set_static_endpoints(self, addresses: tuple[AddrPort, ...]) -> None:
        """Addresses under which this node can be reached although it cannot find that out."""
        self._endpoints.set_configured((*addresses, *self._switches.pretended))

    def _told_addresses(self) -> Iterable[IPAddress]:
        """The addresses of our interfaces, as far as peers are told of them."""
        if self._switches.omit_local:
            return ()
        addresses = self._local_addresses()
        return addresses if self._switches.all_v6 else thin_out(addresses)

    # -- configuration -------------------------------------------------------------------------------

    @property
    def disco_public(self) -> DiscoPublic:
        """Names this process, and this stretch of having a private key, to peers; control must be told."""
        return self._paths.disco.public

    @property
    def disco_private(self) -> DiscoPrivate:
        return self._paths.disco.private

    def adopt_disco(self, private: DiscoPrivate) -> None:
        """Go on with the disco key of an earlier process. Before the first peer; nothing happens afterwards."""
        self._paths.adopt_disco(private)

    def rotate_disco(self, private: DiscoPrivate | None = None) -> None:
        """Take a new disco key, or ``private``, and look for our addresses again; control must be told of the key."""
        self._paths.rotate_disco(private)
        self.restun()

    def last_addresses(self) -> dict[NodePublic, AddrPort]:
        """Where peers were last reached directly."""
        return self._paths.addresses()

    @property
    def home_relay(self) -> int:
        """The region we are reachable through, 0 for none."""
        return self._home.region

    @property
    def relays(self) -> RelayMap:
        return self._relays

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self._endpoints.current)

    @property
    def live_relays(self) -> int:
        """How many relays are connected."""
        return len(self._links.open_regions())

    @property
    def home_relay_fails(self) -> bool:
        """Whether the last attempt to connect to the home relay got nowhere."""
        return bool(self._links.last_error(self._home.region))

    def relay_view(self) -> RelayView:
        """What there is to know of relays and sockets for the health of the node."""
        home = self._home.region
        return RelayView(
            home=home,
            connected=self._links.is_open(home),
            heard_at=self._links.last_frame_at(home),
            names={number: region.name for number, region in self._relays.regions.items()},
            problems=self._links.health,
            tls_errors=self._links.tls_errors(),
            network_up=self._network_up,
            udp4_bound=self.sockets.v4 is not None,
        )

    @property
    def _network_up(self) -> bool:
        return any(not ip.is_loopback for ip in self._known_addresses) or self._switches.network_up

    def relay_code(self, region: int) -> str:
        """The short name of a region, empty for none."""
        return self._relays.code(region) if region else ""

    @property
    def relay_links(self) -> RelayLinks:
        """The relay connections, to be asked about their state."""
        return self._links

    def set_private_key(self, private: NodePrivate | None) -> None:
        """Who we are to relays and peers. None disconnects from relays and sends nothing any more."""
        if private == self._private:
            return
        self._private = private
        self._paths.own_key = private.public().raw if private is not None else None
        self._links.set_key(private)
        if private is None:
            self._paths.renew_disco()
            self._restun.cancel()
            self._prober.abort()
            self._news.forget()
            self._endpoints.untold()
            return
        if self._home.region:
            self._tell_control(self._prober.history.last or Report())
        self._endpoints.schedule()
        if self._relays.regions:
            self._prober.start()

    def set_derp_map(self, wire: DERPMap | None) -> None:
        """The relays to use. Home is chosen at once when there is one, else with the first answer."""
        relays = relay_map(wire) if self._switches.relays is None else self._switches.relays
        if relays == self._relays:
            return
        self._relays = relays
        self._links.set_map(relays)
        self._prober.set_map(relays)
        home_changed = self._home.map_changed(relays)
        self._paths.relays_changed()
        if home_changed:
            self._home_changed()
        self._endpoints.schedule()
        if self._private is not None:
            self._prober.start(full=True)

    def set_background_stun(self, on: bool) -> None:
        """Ask STUN servers although there is no traffic, as the network wants, or not."""
        if on != self._background_stun:
            self._background_stun = on
            self.path_idle()
            if on and not self._prober.running:
                self._arm_restun()

    def set_random_port(self, on: bool) -> bool:
        """Be at any port, as the network wants, or at the one that the user chose; whether the port is another now.

        Several nodes behind one router that give it the same port get into each other's way.
        """
        if on == self._random_port:
            return False
        self._random_port = on
        if not self._fixed_port:
            return False
        self._endpoints.fixed_port = 0 if on else self._fixed_port
        self._bind_again(self._endpoints.fixed_port)
        return True

    def set_only_tcp(self, on: bool) -> None:
        """Send nothing over UDP, as the network wants: all goes through relays, over TCP."""
        if on == self._only_tcp:
            return
        self._only_tcp = on
        self._paths.set_relays_only(on or self._switches.relays_only)
        self._prober.set_silent(on)
        self._paths.reset_all()
        if self._private is not None:
            self._prober.start(full=True)

    def update_peer(self, peer: PathPeer) -> None:
        """Add a peer or change what control says about it; unchanged costs next to nothing."""
        self._paths.update(peer)

    def remove_peer(self, key: NodePublic) -> None:
        """Forget a peer; an unknown key is ignored."""
        peer = self._paths.remove(key)
        if peer is not None:
            self._calls.forget(peer)

    # -- traffic -------------------------------------------------------------------------------------

    def send(self, key: NodePublic, datagram: bytes) -> None:
        """Send a handshake message: over the trusted path, else over every path there is."""
        peer = self._paths.get(key)
        if peer is None:
            return
        self._traffic(peer)
        path = peer.path
        if isinstance(path, WireGuardOnlyPath):
            initiation = message_type(datagram) == MESSAGE_INITIATION
            for address in path.handshake_addresses(self._clock.monotonic(), initiation=initiation):
                self._send_udp(peer, address, datagram)
            return
        trusted = path.trusted(self._clock.monotonic())
        sent = path.best is not None and self._send_udp(peer, path.best.address, datagram)
        if trusted and sent:
            return
        peer.handshake = (datagram, self._clock.monotonic())
        if path.relay:
            self._links.send(path.relay, key.raw, datagram)

    def send_to(self, address: AddrPort, datagram: bytes) -> None:
        """Send straight to an address (cookie replies)."""
        if not self._only_tcp:
            self.sockets.send(datagram, address)

    def peer_active(self, key: NodePublic) -> None:
        """The data plane saw first traffic with a peer: keep its path alive from now on."""
        peer = self._paths.get(key)
        if peer is not None:
            self._traffic(peer)

    def peer_authenticated(self, key: NodePublic, source: AddrPort | NodePublic) -> None:
        """A message from this source proved to be the peer's."""
        if isinstance(source, AddrPort):
            self._paths.authenticated(key, source)

    def send_error(self, key: NodePublic, code: int) -> None:
        """The data plane could not send to a peer's address."""
        peer = self._paths.get(key)
        if peer is not None and peer.path.best is not None and code in _UNREACHABLE:
            peer.path.send_failed(peer.path.best.address, self._clock.monotonic())
            self._paths.turn(peer)

    def relay_wake(self, region: int) -> None:
        """The data plane has frames for a relay."""
        self._links.wake(region)

    def receive_datagram(self, address: bytes, port: int, data: bytes) -> None:
        """A UDP datagram that is not WireGuard transport."""
        if stun.is_stun(data):
            self._prober.receive(data)
            return
        source = AddrPort.unpack(address, port)
        if disco.is_disco(data):
            self._paths.receive(data, source)
        elif len(data) > 1:  # one-byte datagrams are a workaround for a kernel bug on the other side
            self._on_handshake(data, source)

    def _traffic(self, peer: PeerPath) -> None:
        peer.path.traffic_sent(self._clock.monotonic())
        self._paths.turn(peer)
        if not self._restun.armed and not self._prober.running:
            if self._endpoints.fresh:
                self._arm_restun()
            else:
                self._prober.start()

    def _send_udp(self, peer: PeerPath, address: AddrPort, data: bytes) -> bool:
        if self._only_tcp:
            return False
        code = self.sockets.send(data, address)
        if code in _UNREACHABLE and peer.path.best is not None and peer.path.best.address == address:
            peer.path.send_failed(address, self._clock.monotonic())
            self._paths.turn(peer)
        return code == 0

    # -- questions -----------------------------------------------------------------------------------

    def status(self, key: NodePublic) -> PathStatus | None:
        """How packets reach a peer now; None when it is unknown."""
        peer = self._paths.get(key)
        if peer is None:
            return None
        path = peer.machine
        if path is None:
            return PathStatus(None, peer.relay, active=False, last_write=None, latency_s=0.0)
        now = self._clock.monotonic()
        self._paths.note_traffic(peer)
        trusted = path.trusted(now)
        return PathStatus(
            address=path.best.address if path.best is not None and trusted else None,
            relay=path.relay,
            active=path.active(now),
            last_write=self._clock.wall() - (now - path.last_send) if path.last_send else None,
            latency_s=path.best.latency_s if path.best is not None else 0.0,
        )

    def debug_state(self) -> dict[str, object]:
        """Sockets, endpoints, relays and the paths to peers that were used, for people."""
        return {
            "PortV4": self.sockets.port_v4,
            "PortV6": self.sockets.port_v6,
            "OnlyTCP": self._only_tcp,
            "Endpoints": [f"{endpoint.addr} {endpoint.kind.name}" for endpoint in self._endpoints.current],
            "HomeRelay": self._home.region,
            "OpenRelays": self._links.open_regions(),
            "DiscoKey": self.disco_public.text(),
            "DiscoDrops": self.disco_drops(),
            "Paths": {
                key.text(): {"Address": status.address, "Relay": status.relay, "Active": status.active}
                for key in self._paths.used()
                if (status := self.status(key)) is not None
            },
        }

    def path_changes(self, key: NodePublic) -> list[PathChange]:
        """The debug log of a peer's path."""
        peer = self._paths.get(key)
        return peer.machine.changes if peer is not None and peer.machine is not None else []

    async def ping(self, key: NodePublic, size: int = 0) -> PingOutcome | None:
        """Disco ping with a UDP payload of ``size`` bytes (0: smallest); the first pong counts.

        None when there is no answer within 5 s. MeshdError when the peer cannot be pinged at all.
        """
        peer = self._paths.get(key)
        if peer is None:
            raise MeshdError("no such peer", code="not_found")
        return await self._pings.ping(peer, size)

    async def netcheck(self, bound: tuple[IPAddress | None, int] | None = None) -> Report:
        """A full network check now, over the sockets of the mesh or over others that are ``bound`` so."""
        if bound is None:
            return await self._prober.report()
        return await bound_check(
            self._relays, *bound, clock=self._clock, random=self._random, measure=self._measure, mark=self._mark
        )

    @property
    def last_report(self) -> Report | None:
        return self._prober.history.last

    @property
    def recent_latency(self) -> dict[int, float]:
        """Seconds to the relay regions, also to those that the last report did not measure."""
        return self._prober.history.recent()

    def disco_drops(self) -> dict[str, int]:
        """Disco packets that were not accepted, by reason."""
        return dict(self._paths.disco.dropped)

    # -- the network changed -------------------------------------------------------------------------

    def link_changed(self) -> None:
        """Interfaces or routes changed, so everything is measured again.

        When an address is gone from which packets left for the internet (any, where none did), sockets are opened
        anew (keeping their port) and proven paths are forgotten. Others, such as those of containers, and new ones do
        not disturb traffic: the sockets are bound to all addresses. Only paths that were found from an address that is
        gone are forgotten, because their peers send there; other peers and relays are asked whether they still hear us,
        since another route may give packets another source.
        """
        addresses = list(self._local_addresses())
        before, self._known_addresses = self._known_addresses, local_candidates(addresses)
        device, self._device = self._device, bound_device()
        sources, self._sources = self._sources, self._way_out()
        gone = set(before).difference(addresses)
        if (gone and (not sources or not gone.isdisjoint(sources))) or device != self._device:
            self.rebind()
        elif self._private is not None:
            if before != self._known_addresses:
                self._endpoints.schedule()
            self._links.link_changed()
            self._paths.reset_from(gone)
            self._paths.verify_all()
            self._prober.start()

    def restun(self) -> None:
        """Check the network now."""
        self._prober.start()

    def prefer_relay(self, region: int) -> None:
        """Make a region home whenever it answers, until this process ends; 0 for no preference."""
        self._preferred_relay = region
        self._prober.start(full=True)

    def move_home(self) -> None:
        """Another home relay, until the next check. MeshdError when there is no other."""
        if not self._home.move():
            raise MeshdError("too few regions", code="invalid")
        self._home_changed()

    def set_homeless(self, homeless: bool) -> None:
        """Keep no connection to a home relay, or keep one again."""
        if self._home.set_homeless(homeless):
            self._home_changed()
        if not homeless:
            self._prober.start(full=True)

    def watch_disco(self, told: Callable[[AddrPort, bytes | None, bytes], None] | None) -> None:
        """Tell every disco message that a peer sends: where from, by which relay client, opened. None ends it."""
        self._paths.disco_watcher = told

    def break_relays(self) -> None:
        """Cut every relay connection; they are made again (for tests of what happens then)."""
        self._links.break_all()

    def rebind(self) -> None:
        """Open the sockets anew and find every path again."""
        self._bind_again(self.sockets.port_v4 or self.sockets.port_v6 or self._port)

    def _bind_again(self, port: int) -> None:
        self._port = port
        self._prober.abort()
        self._plane.set_udp((), ())
        self.sockets.close()
        self.sockets = self._open_again()
        self._plane.set_udp(self.sockets.fds_v4, self.sockets.fds_v6)
        self.find_again()

    def find_again(self) -> None:
        """Nothing that is known of ways to relays and peers need be true any more: find all of them again."""
        self._endpoints.network_changed()
        self._prober.history.forget()
        self._paths.reset_all()
        self._links.link_changed()
        if self._private is not None:
            self._endpoints.schedule()
            self._prober.start(full=True)

    def _open_again(self) -> UdpSockets:
        """At the port that we want, else at any. When there is none, relays carry everything until one is found."""
        if self._no_socket is not None:
            self._no_socket.cancel()
            self._no_socket = None
        for port in (self._port, 0):
            try:
                return self._reopen(port)
            except MeshdError as error:
                log.warning("udp_port_lost", extra=kv(port=port, reason=error.message))
        self._no_socket = self._loop.call_later(REOPEN_S, self.rebind)
        return UdpSockets(None, None)

    def close(self) -> None:
        """End everything and close the sockets."""
        if self._no_socket is not None:
            self._no_socket.cancel()
        self._restun.cancel()
        self._calls.close()
        self._prober.close()
        self._endpoints.close()
        self._paths.close()
        self._links.close()
        self._pings.close()
        self._plane.set_udp((), ())  # its threads run on, and the numbers of closed sockets are given to others
        self.sockets.close()

    # -- effects of paths (PathOwner) ----------------------------------------------------------------

    def path_send(self, peer: PeerPath, packet: bytes, address: AddrPort | None) -> None:
        if address is not None:
            self._send_udp(peer, address, packet)
        elif peer.path.relay:
            self._links.send(peer.path.relay, peer.key.raw, packet)

    def path_answer(self, packet: bytes, peer: PeerPath, source: AddrPort) -> None:
        """Back the way it came, which for a relay need not be the one we send through."""
        if source.ip == DERP_MAGIC_IP:
            self._links.send(source.port, peer.key.raw, packet)
        else:
            self.send_to(source, packet)

    def path_call(self, peer: PeerPath) -> None:
        """Ask the peer to ping us, as soon as we know where we are."""
        self._calls.ask(peer)

    def path_answered(self, token: int, latency_s: float, address: AddrPort | None, relay: int) -> None:
        self._pings.answered(token, PingOutcome(latency_s, address, relay))

    def path_direct(self, peer: PeerPath, address: AddrPort) -> None:
        peer.source = self._address_towards(address.ip)
        self._pings.became_direct(peer, address)
        waiting, peer.handshake = peer.handshake, None
        if waiting is not None and self._clock.monotonic() - waiting[1] < HANDSHAKE_FRESH_S:
            # It may have been lost: its peer was not reachable yet. A second copy does no harm, WireGuard's own
            # retry would come seconds later.
            self._send_udp(peer, address, waiting[0])

    def path_idle(self) -> None:
        if not self._paths.active and not self._background_stun:
            self._restun.cancel()

    def path_lapsed(self) -> None:
        """A router that started again gives us another port, and peers ping the old one until they hear of it.

        Whatever it was happened before a heartbeat stayed without an answer: a later check knows of it already.
        """
        if self._clock.monotonic() - self._prober.started_at >= HEARTBEAT_INTERVAL_S:
            self._prober.start()

    def path_relay(self, home: int, heard: int) -> int:
        """A peer's home region, or the one it was heard on when only that is connected. Of a peer that is so
        new that its home is not known yet, our own home is the best guess."""
        home = self._admitted(home)
        if home and (not heard or self._links.is_open(home) or not self._links.is_open(heard)):
            return home
        return heard or self._admitted(self._home.region)

    def _admitted(self, region: int) -> int:
        """The region, or 0 when it does not exist or would be one too many."""
        if region not in self._relays.regions:
            return 0
        if region not in self._regions_used:
            if len(self._regions_used) >= MAX_REGIONS_EVER:
                return 0
            self._regions_used.add(region)
        return region

    def _send_call(self, peer: PeerPath) -> None:
        self._paths.send_message(peer, disco.CallMeMaybe(self._endpoints.addresses), None)

    # -- relays (RelayEvents) ------------------------------------------------------------------------

    def relay_packets(self, region: int, packets: PacketsReceived) -> None:
        for source in packets.sources:
            self._paths.heard(source, region)
        if packets.transport:
            self._plane.open_relayed(packets.transport)
            self._paths.data_relayed(packets.sources)
        for source, data in packets.other:
            if disco.is_disco(data):
                self._paths.receive(data, AddrPort(DERP_MAGIC_IP, region), source)
            elif (peer := self._paths.by_raw(source)) is not None:
                self._on_handshake(data, peer.key)

    def relay_peer_gone(self, region: int, gone: PeerGone) -> None:
        self._paths.gone(gone.key, region)

    def relay_changed(self, region: int, is_open: bool) -> None:
        self._paths.relay_changed(region, is_open)
        if not is_open and region == self._home.region and self._private is not None:
            self._prober.start()
        self._on_relays()

    def relay_failed(self, region: int) -> None:
        """Another region may be nearer now. An idle node would not look, and nobody could reach it."""
        if region != self._home.region:
            return
        overdue = self._clock.monotonic() - self._prober.started_at >= HOME_LOST_CHECK_S
        if overdue and self._network_up:
            self._prober.start()
        self._on_relays()

    def relay_health_changed(self) -> None:
        self._on_relays()

    def take_relayed(self, region: int, limit: int = 0) -> bytes:
        return self._plane.take_relayed(region, limit) if region in self._regions_used else b""

    # -- network check (ProbeEvents) -----------------------------------------------------------------

    def region_answered(self, region: int) -> None:
        if self._home.answered(region):
            self._home_changed()

    def address_found(self, address: AddrPort) -> None:
        self._endpoints.found(address)
        self._calls.address_found()

    def check_finished(self, report: Report, started: float) -> None:
        self._links.prefer_v6 = report.ipv6
        wanted = self._preferred_relay
        preferred = wanted if report.region_latency.get(wanted) else report.preferred_derp
        if self._home.checked(preferred, control_connected=self.control_connected):
            self._home_changed(report)
        self._endpoints.checked(report)
        self._calls.flush()
        self._tell_control(report)
        if self._paths.active or self._background_stun:
            self._arm_restun()

    def home_frame_at(self) -> float:
        return self._links.last_frame_at(self._home.region)

    def _home_changed(self, report: Report | None = None) -> None:
        region = self._home.region
        log.info("home_relay", extra=kv(derp=region))
        self._prober.history.home = region
        self._links.set_home(region)
        self._paths.relays_changed()
        self._tell_control(report or self._prober.history.last or Report())

    def _tell_control(self, report: Report) -> None:
        if self._private is not None:
            self._news.tell(report, self._home.region)

    def set_firewall_mode(self, mode: str) -> None:
        """By which means the host's packet filter is set, for control's eyes."""
        self._news.set_firewall_mode(mode)
        if self._prober.history.last is not None:
            self._tell_control(self._prober.history.last)

    def ports(self) -> list[int]:
        """Our UDP ports."""
        return sorted({self.sockets.port_v4, self.sockets.port_v6} - {0})

    def _endpoints_changed(self, endpoints: list[Endpoint]) -> None:
        self._on_endpoints(endpoints)
        now = self._clock.monotonic()
        for peer in list(self._paths.active):
            if peer.path.relay and not peer.path.trusted(now) and self._endpoints.fresh:
                self._send_call(peer)  # it pings addresses that are no longer ours

    # -- periodic check ------------------------------------------------------------------------------

    def _arm_restun(self) -> None:
        if self._private is not None and self._relays.regions:
            self._restun.arm()

    def _restun_due(self) -> None:
        if self._paths.active or self._background_stun:
            self._prober.start()
