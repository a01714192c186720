"""Everything between a map frame and the data plane's snapshot, joined as the daemon joins it, without a network."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import msgspec

from meshd._fast.plane import Plane
from meshd.base.keys import NodePrivate
from meshd.core.mapchange import MapChange
from meshd.core.mapsession import MapSession
from meshd.core.prefs import default_prefs
from meshd.core.relaymap import RelayMap, RelayRegion
from meshd.core.state import State
from meshd.io.systemclock import SystemClock
from meshd.io.udp import UdpSockets
from meshd.node.engine import Engine
from meshd.node.magicsock import MagicSock
from meshd.node.reconciler import Reconciler
from meshd.node.service import NodeService
from meshd.wire.control import MapResponse, decode
from meshd.wire.mapframe import MapFrameReader
from perf.scale.frames import OWN_PRIVATE


class NoLinks:
    """Relay connections that are never made."""

    prefer_v6 = False

    def set_key(self, key: NodePrivate | None) -> None: ...

    def set_map(self, relays: RelayMap) -> None: ...

    def set_home(self, region: int) -> None: ...

    def send(self, region: int, destination: bytes, packet: bytes) -> bool:
        return False

    def wake(self, region: int) -> None: ...

    def is_open(self, region: int) -> bool:
        return False

    def open_regions(self) -> list[int]:
        return []

    def last_frame_at(self, region: int) -> float:
        return 0.0

    def link_changed(self) -> None: ...

    def close(self) -> None: ...


async def _unreachable(region: RelayRegion) -> float:
    raise ConnectionError("there is no network here")


class StatusService(NodeService):
    """Only what ``status`` needs, of a node without preferences, store and login."""

    def __init__(self, backend: object, engine: Engine, magicsock: MagicSock) -> None:
        self._backend = backend  # type: ignore[assignment]
        self._engine = engine
        self._magicsock = magicsock
        self._tun = False


class WholeNode:
    """Feed it frames inside a running loop."""

    def __init__(self) -> None:
        loop, clock = asyncio.get_running_loop(), SystemClock()
        self.plane = Plane(tun_fds=[], udp4_fd=-1, udp6_fd=-1)
        self.engine = Engine(self.plane, loop, clock, lambda key, data: None)
        self.magicsock = MagicSock(
            self.plane,
            loop,
            clock,
            UdpSockets(None, None),
            peer_index=self.engine.peer_index,
            on_handshake=self.engine.receive,
            mark=False,
            links=NoLinks(),  # type: ignore[arg-type]
            measure=_unreachable,
            local_addresses=lambda: (),
        )
        self.reconciler = Reconciler(self.engine, self.magicsock, None, lambda: [], 1280, lambda code, text: None)
        self.session = MapSession()
        self.prefs = msgspec.structs.replace(default_prefs(), want_running=True)
        self._reader = MapFrameReader(zstd=True)
        self._backend = SimpleNamespace(
            state=State.RUNNING,
            node_private=OWN_PRIVATE,
            auth_url="",
            health=SimpleNamespace(texts=list),
            prefs=self.prefs,
            netmap=None,
            client_version=None,
            in_map_poll=True,
        )
        self.service = StatusService(self._backend, self.engine, self.magicsock)
        self.plane.start()

    async def feed(self, frame: bytes) -> MapChange:
        """From the bytes of one frame to what packet threads read."""
        change = MapChange()
        for message in self._reader.feed(frame):
            change = self.session.apply(decode(MapResponse, message), time.time())
            self.session.next_expiry(time.time())
            assert self.session.netmap is not None
            self._backend.netmap = self.session.netmap
            self.reconciler.apply(self.session.netmap, self.prefs, OWN_PRIVATE, change)
        await asyncio.sleep(0)  # what was put off to the end of this turn of the loop
        return change

    def close(self) -> None:
        self.magicsock.close()
        self.engine.close()
        self.plane.stop()
