"""Pings of a peer's PeerAPI: the HTTP server that a node has for the other nodes of its network."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from meshd.base.addr import IPAddress
from meshd.base.errors import MeshdError
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.io.http.h1client import fetch
from meshd.io.streams import SocketStream
from meshd.node.peerfields import peer_api

TIMEOUT_S = 10.0


def peer_api_of(netmap: Netmap, ip: IPAddress) -> tuple[Node, str]:
    """The peer with this address and the URL of its PeerAPI there. Raises MeshdError."""
    node = netmap.peer_by_ip(ip)
    if node is None:
        raise MeshdError(f"no peer found with Tailscale IP {ip}", code="not_found")
    if node.expired:
        raise MeshdError("peer's node key has expired", code="unavailable")
    urls = peer_api(node.hostinfo, [str(ip)])
    if not urls:
        raise MeshdError(f"no PeerAPI base found for peer {node.id} ({ip})", code="unavailable")
    return node, urls[0]


async def hit_peer_api(url: str) -> None:
    """One request through the tunnel; returns when the peer's server said that it is there. Raises MeshdError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            # Not marked as our own: this connection belongs into the tunnel.
            _, stream = await asyncio.get_running_loop().create_connection(SocketStream, host, parts.port or 80)
            try:
                headers = [("Host", parts.netloc), ("User-Agent", "meshd"), ("Connection", "close")]
                answer = await fetch(stream, "HEAD", "/", headers, limit=0)
            finally:
                stream.close()
    except TimeoutError:
        raise MeshdError(f"no answer from {parts.netloc} within {TIMEOUT_S:.0f} s", code="unavailable") from None
    except OSError as error:
        raise MeshdError(f"cannot connect to {parts.netloc}: {error.strerror or error}", code="unavailable") from None
    if answer.status != 200:
        raise MeshdError(f"HTTP status {answer.status}", code="unavailable")
