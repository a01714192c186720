"""One relay connection: dial, TLS, DERP, and again after a pause when it breaks."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.base.log import get_logger, kv
from meshd.core import derpclient
from meshd.core.backoff import Backoff
from meshd.core.relaymap import RelayRegion
from meshd.io.interfaces import local_addresses
from meshd.io.relaydial import Dialled, certificate_check, dial_region
from meshd.io.tls import TlsEngine, relay_key
from meshd.io.tlsstream import TlsProtocol

CONNECT_TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 5.0
IN_USE_PAUSE_S = 1.0  # on average, while packets wait and nobody takes our connection: it costs the relay nothing
DEMAND_S = 60.0  # how long a packet for a region justifies trying to reach it
WRITE_BYTES = 64 * 1024  # of frames; small enough to come from and go back to the process's own memory
WRITES_PER_TURN = 4
UNSENT_BYTES = 256 * 1024  # what the kernel takes beyond what is on its way: the rest waits where it can be dropped
QUEUE_PACKETS = 32  # handshakes and disco that wait for the connection, or for room in it

_log = get_logger(__name__)


class LinkOwner(Protocol):
    """Where a link reports to, and what it asks."""

    prefer_v6: bool

    def link_packets(self, region: int, packets: derpclient.PacketsReceived) -> None: ...

    def link_peer_gone(self, region: int, gone: derpclient.PeerGone) -> None: ...

    def link_health(self, region: int, change: derpclient.HealthChanged) -> None: ...

    def link_changed_state(self, region: int, is_open: bool) -> None: ...

    def link_failed(self, region: int) -> None: ...

    def link_take(self, region: int, limit: int = 0) -> bytes: ...


class RelayLink:
    """Keeps one region connected while it is home or in demand. ``start`` once, ``close`` at the end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        region: RelayRegion,
        key: NodePrivate,
        owner: LinkOwner,
        *,
        random: Callable[[int], bytes],
        mark: bool,
    ) -> None:
        self.region = region
        self.last_wanted = 0.0
        self.last_error = ""
        self.tls_failed = False
        """The last attempt got as far as TLS, and failed there."""
        self._unreached = False  # the last attempt did not even get a TCP connection
        self._loop = loop
        self._clock = clock
        self._key = key
        self._owner = owner
        self._random = random
        self._mark = mark
        self._home = False
        self._queue: deque[tuple[bytes, bytes]] = deque(maxlen=QUEUE_PACKETS)
        self._protocol: TlsProtocol | None = None
        self._client: derpclient.DerpClient | None = None
        self._local: object = None
        self._lost: asyncio.Future[str] | None = None
        self._up: asyncio.Future[None] | None = None
        self._announced = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.Event = asyncio.Event()
        self._eager = False  # the next packet ends the pause
        self._backoff = Backoff(self._fraction)
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether packets pass now."""
        return self._client is not None and self._client.state is derpclient.State.RUNNING

    @property
    def last_received(self) -> float:
        return self._client.last_received if self._client is not None else 0.0

    def start(self) -> None:
        self._task = self._loop.create_task(self._run(), name=f"meshd-relay-{self.region.id}")

    def close(self) -> None:
        """Close for good, quietly."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._drop_connection()

    def cut(self) -> None:
        """Lose the connection, to be made again."""
        self._finish("cut on request")

    def set_home(self, home: bool) -> None:
        self._home = home
        if self._client is not None:
            self._client.note_preferred(home)
            self._send_pending()
        if home:
            self._pause.set()

    def wanted(self, now: float) -> None:
        """Somebody has something to send: a link that nobody wanted until now wakes up, and no pause is long."""
        if self._eager or now - self.last_wanted >= DEMAND_S:
            self._pause.set()
        self.last_wanted = now

    def network_changed(self) -> None:
        """Close when the local address is gone, else make sure that the relay still answers."""
        self._pause.set()
        if self._protocol is None:
            return
        if self._local not in {str(ip) for ip in local_addresses()}:
            self._finish("the local address is gone")
        elif self._client is not None:
            self._client.probe(self._clock.monotonic())
            self._send_pending()
            self._arm()

    # -- sending -------------------------------------------------------------------------------------

    def send(self, destination: bytes, packet: bytes) -> bool:
        """Send one packet, or queue it while connecting or while the relay does not read (the oldest falls out)."""
        if self._client is None or not self.is_open or self._full:
            self._queue.append((destination, packet))
            return True
        sent = self._client.send_packet(destination, packet, self._clock.monotonic())
        self._send_pending()
        return sent

    def flush(self) -> None:
        """Send what the data plane has for this region, as long as the connection takes it."""
        for _ in range(WRITES_PER_TURN):
            if self._client is None or not self.is_open or self._full:
                return
            frames = self._owner.link_take(self.region.id, WRITE_BYTES)
            if not frames:
                return
            now = self.last_wanted = self._clock.monotonic()  # a full queue is not announced again
            self._client.send_frames(frames, now)
            self._send_pending()
        self._loop.call_soon(self.flush)  # what comes in has its turn, too

    @property
    def _full(self) -> bool:
        """Whether the connection takes no more for now."""
        return self._protocol is not None and self._protocol.paused

    def _send_queued(self) -> None:
        if self._client is None or not self.is_open:
            return
        now = self._clock.monotonic()
        for destination, packet in self._queue:
            self._client.send_packet(destination, packet, now)
        self._queue.clear()
        self._send_pending()

    def _send_pending(self) -> None:
        if self._client is not None and self._protocol is not None and (data := self._client.data_to_send()):
            self._protocol.write(data)

    # -- connection ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closed:
            started = self._loop.time()
            self._unreached = False
            self._pause.clear()
            self.last_error = await self._attempt()
            failed = not self._announced and not self._closed
            self._drop_connection()
            if failed:
                self._owner.link_failed(self.region.id)
            self._owner.link_take(self.region.id)  # too old to be worth sending later
            _log.info("relay_down", extra=kv(derp=self.region.id, reason=self.last_error))
            if self._loop.time() - started > LONGEST_PAUSE_S:
                self._backoff.reset()
            await self._pause_after_failure()
            while not self._home and self._clock.monotonic() - self.last_wanted >= DEMAND_S:
                await self._wait(DEMAND_S)

    async def _attempt(self) -> str:
        """Connect and stay connected; returns why that failed or ended."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                lost = await self._connect()
        except (OSError, MeshdError) as error:
            self.tls_failed = getattr(error, "code", "") == "tls"
            self._unreached = getattr(error, "code", "") == "relay-unreachable"
            return getattr(error, "message", "") or str(error) or "no answer in time"
        except Exception as error:  # noqa: BLE001 - logged; nobody would start this task again
            self.tls_failed = False
            reason = f"internal error: {type(error).__name__}"
            known = reason == self.last_error
            _log.error("relay_fault", extra=kv(derp=self.region.id, reason=reason), exc_info=None if known else error)
            return reason
        return await lost

    async def _pause_after_failure(self) -> None:
        """Longer after each failure. While the relay is away, whoever has packets for it looks every second.

        One that answers and then refuses, or is too busy to, has the long pauses in any case.
        """
        pause = min(self._backoff.failed(), LONGEST_PAUSE_S)
        short = min(pause, IN_USE_PAUSE_S * (0.5 + self._fraction())) if self._unreached else pause
        began = self._clock.monotonic()
        if not await self._wait(short) or short >= pause or self.last_wanted >= began:
            return
        self._eager = True
        await self._wait(pause - short)
        self._eager = False

    def _fraction(self) -> float:
        """A random number from 0 to 1."""
        return int.from_bytes(self._random(4), "big") / 2**32

    async def _wait(self, seconds: float) -> bool:
        """Pause; ``set_home``, new demand and a network change end it early, those during the attempt before it, too.
        Whether it was not cut short."""
        try:
            async with asyncio.timeout(seconds):
                await self._pause.wait()
        except TimeoutError:
            return True
        self._pause.clear()
        return False

    async def _connect(self) -> asyncio.Future[str]:
        """Returns when the connection carries packets or broke; the future ends with the reason of its loss."""
        dialled = await dial_region(self.region, prefer_v6=self._owner.prefer_v6, mark=self._mark)
        try:
            return await self._secure(dialled)
        except BaseException:
            dialled.sock.close()
            raise

    async def _secure(self, dialled: Dialled) -> asyncio.Future[str]:
        lost = self._lost = self._loop.create_future()
        up = self._up = self._loop.create_future()
        ideal = "" if dialled.node is self.region.derp_nodes[0] else self.region.derp_nodes[0].name
        protocol = TlsProtocol(
            certificate_check(dialled.node),
            on_established=lambda engine: self._established(engine, dialled.node.host, ideal),
            on_data=self._data,
            on_writable=self._writable,
            on_lost=lambda error: self._finish(
                getattr(error, "message", "") or str(error or "") or "the relay closed the connection", lost
            ),
        )
        self._local = dialled.sock.getsockname()[0]
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            dialled.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._protocol = protocol
        await self._loop.create_connection(lambda: protocol, sock=dialled.sock)
        if protocol.lost:
            # The transport closed the descriptor before the socket was its own to close. The socket would close it
            # once more when it goes, and by then it may be that of any other connection.
            dialled.sock.detach()
        else:
            protocol.direct = dialled.sock
        await asyncio.wait({lost, up}, return_when=asyncio.FIRST_COMPLETED)
        return lost

    def _established(self, engine: TlsEngine, host: str, ideal_node: str) -> None:
        now = self._clock.monotonic()
        self._client = derpclient.DerpClient(
            self._key,
            host=host,
            random=self._random,
            server_key=relay_key(engine),
            preferred=self._home,
            ideal_node=ideal_node,
        )
        self._client.start(now)
        self._step()

    def _data(self, data: bytes) -> None:
        if self._client is not None:
            self._client.answers_pings = not self._full
            self._client.receive_data(data, self._clock.monotonic())
            self._step()

    def _writable(self) -> None:
        self._send_queued()
        self.flush()

    def _step(self) -> None:
        client, region = self._client, self.region.id
        if client is None:
            return
        for effect in client.drain():
            match effect:
                case derpclient.PacketsReceived():
                    self._owner.link_packets(region, effect)
                case derpclient.PeerGone():
                    self._owner.link_peer_gone(region, effect)
                case derpclient.HealthChanged():
                    self._owner.link_health(region, effect)
                case derpclient.Ready():
                    self._ready()
                case derpclient.Restarting():
                    _log.info("relay_restarting", extra=kv(derp=region, reconnect_s=effect.reconnect_in_s))
                case derpclient.Failed():
                    self._finish(effect.reason)
                    return
                case derpclient.ProbeAnswered():
                    _log.debug("relay_alive", extra=kv(derp=region, took_ms=round(effect.latency_s * 1000)))
        self._send_pending()
        if self._timer is None:
            self._arm()

    def _ready(self) -> None:
        self.last_error, self.tls_failed = "", False
        _log.info("relay_up", extra=kv(derp=self.region.id, home=self._home))
        self._send_queued()
        self._announced = True
        self._pause.clear()
        if self._up is not None and not self._up.done():
            self._up.set_result(None)
        self._owner.link_changed_state(self.region.id, True)
        self.flush()

    def _arm(self) -> None:
        """The timer is moved when it fires, not at every packet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._client.next_timer() if self._client is not None else None
        if deadline is not None:
            delay = max(0.0, deadline - self._clock.monotonic())
            self._timer = self._loop.call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self._client is not None:
            self._client.handle_timer(self._clock.monotonic())
            self._step()

    def _finish(self, reason: str, lost: asyncio.Future[str] | None = None) -> None:
        lost = lost or self._lost
        if lost is not None and not lost.done():
            lost.set_result(reason)

    def _drop_connection(self) -> None:
        was_open, self._announced = self._announced, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        client, protocol = self._client, self._protocol
        self._client = self._protocol = None
        if client is not None:
            client.close()
        if protocol is not None:
            protocol.close()
        if was_open and not self._closed:
            self._owner.link_changed_state(self.region.id, False)
