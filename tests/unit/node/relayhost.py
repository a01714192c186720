"""A relay with STUN in this process."""

from __future__ import annotations

from meshd.base.keys import NodePrivate
from meshd.io.http.front import FrontConnection, Response
from meshd.io.listener import SniffingListener
from meshd.relay.certificate import self_signed
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer
from meshd.relay.stun import StunServer
from meshd.wire.control import DERPNode, DERPRegion


class RelayHost:
    """Region ``number`` on 127.0.0.1. With ``stun=False`` it behaves like a host whose UDP is blocked."""

    def __init__(self, number, folder):
        folder.mkdir(exist_ok=True)
        self.number = number
        self.private = NodePrivate.generate()
        self.server = RelayServer(self.private)
        tls = self_signed(folder, ["127.0.0.1"], self.private.public())
        self.pin = tls.pin
        pages = RelayPages(self.server)

        async def handle(request):
            return await pages.handle(request) or Response(404)

        self.listener = SniffingListener(
            lambda encrypted, released: FrontConnection(handle, encrypted, released),
            tls=tls.context,
            max_connections=100,
        )
        self.stun = StunServer()

    async def start(self, *, stun=True):
        self.listener.listen("127.0.0.1", 0)
        if stun:
            await self.stun.start("127.0.0.1", 0)
        return self

    def region(self):
        node = DERPNode(
            name=f"{self.number}a",
            region_id=self.number,
            host_name="127.0.0.1",
            ipv4="127.0.0.1",
            ipv6="none",
            derp_port=self.listener.port,
            stun_port=self.stun.port or 9,
            cert_name=f"sha256-raw:{self.pin}",
        )
        return DERPRegion(region_id=self.number, region_code=f"r{self.number}", nodes=(node,))

    def close(self):
        self.listener.close()
        self.stun.close()
