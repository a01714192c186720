"""How a node is put together: what one part tells another, with the real data plane and no tunnel interface."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from meshd.base.addr import AddrPort, host_prefix, parse_ip
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.cookie import CookieJar
from meshd.core.handshake import Counterpart, Identity, create_initiation
from meshd.core.tai64n import encode_step, step_of
from meshd.daemon.assembly import RunningNode
from meshd.daemon.flags import parse_flags
from meshd.daemon.notify import ServiceNotifier
from meshd.feature.localapi.server import LocalApiServer
from meshd.node.authority import Authority
from meshd.node.enginepeer import PeerConfig
from meshd.node.magicsock import PathPeer
from meshd.wire.wireguard import MESSAGE_INITIATION, MESSAGE_RESPONSE, encode_initiation
from tests.unit.threads import no_room_for_threads

LOOPBACK = parse_ip("127.0.0.1")


def initiation(private: NodePrivate, to: bytes) -> bytes:
    identity = Identity.of(private.raw)
    message, _ = create_initiation(
        identity,
        Counterpart.between(identity, to),
        local_index=7,
        timestamp=encode_step(step_of(time.time())),
        ephemeral_private=NodePrivate.generate().raw,
    )
    return CookieJar(to).sign(encode_initiation(message), 0.0)


@pytest.mark.parametrize("lacking", ["threads", "descriptors"])
def test_assembly_without_room_for_packet_threads_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def refused(*_: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main() -> None:
        flags = parse_flags(
            [f"--statedir={tmp_path}", "--state=mem:", "--tun=userspace-networking", "--syspolicy-file="], {}
        )
        node = RunningNode(flags, Authority(), LocalApiServer(), ServiceNotifier(), lambda: None)
        with contextlib.ExitStack() as stack:
            if lacking == "threads":
                stack.enter_context(no_room_for_threads(monkeypatch))
            else:
                stack.enter_context(monkeypatch.context()).setattr(os, "eventfd", refused)
            with pytest.raises(MeshdError, match="cannot start: ") as caught:
                await node.open()
        assert "TasksMax" in str(caught.value)

    asyncio.run(main())


def test_assembly_node_that_woke_looks_for_relays_and_greets_peers(tmp_path: Path) -> None:
    own, other = NodePrivate.generate(), NodePrivate.generate()

    async def scenario(node: Any, peer: socket.socket) -> None:
        node._engine.set_private_key(own)
        node._magicsock.set_private_key(own)
        node._engine.update_peer(PeerConfig(other.public(), (host_prefix(parse_ip("100.64.0.2")),)))
        address = AddrPort(LOOPBACK, peer.getsockname()[1])
        node._magicsock.update_peer(PathPeer(other.public(), None, 0, (address,), wireguard_only=True))
        node._engine.connected_peers = lambda: [other.public()]
        told = []
        node._backend.network_changed = lambda addresses, *, woke: told.append(woke)
        node.woke(20.0)
        assert not node._engine.used_peers()
        node.woke(200.0)
        async with asyncio.timeout(5):
            assert (await asyncio.get_running_loop().sock_recv(peer, 2000))[0] == MESSAGE_INITIATION
        assert told == [True, True]

    in_a_node(tmp_path, scenario)


def test_assembly_wireguard_only_peer_is_answered_where_it_is_heard(tmp_path: Path) -> None:
    own, other = NodePrivate.generate(), NodePrivate.generate()

    async def scenario(node: Any, peer: socket.socket) -> None:
        node._engine.set_private_key(own)
        node._magicsock.set_private_key(own)
        node._engine.update_peer(PeerConfig(other.public(), (host_prefix(parse_ip("100.64.0.2")),)))
        node._magicsock.update_peer(PathPeer(other.public(), None, 0, (), wireguard_only=True))
        port = node._magicsock.sockets.port_v4
        peer.sendto(initiation(other, own.public().raw), (str(LOOPBACK), port))
        async with asyncio.timeout(5):
            answer = await asyncio.get_running_loop().sock_recv(peer, 2000)
        assert answer[0] == MESSAGE_RESPONSE
        status = node._magicsock.status(other.public())
        assert status.address == AddrPort(LOOPBACK, peer.getsockname()[1])

    in_a_node(tmp_path, scenario)


def in_a_node(tmp_path: Path, scenario: Callable[[Any, socket.socket], Awaitable[None]]) -> None:
    async def main() -> None:
        flags = parse_flags(
            [f"--statedir={tmp_path}", "--state=mem:", "--tun=userspace-networking", "--syspolicy-file="], {}
        )
        node = RunningNode(flags, Authority(), LocalApiServer(), ServiceNotifier(), lambda: None)
        await node.open()
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.setblocking(False)
        peer.bind((str(LOOPBACK), 0))
        try:
            await scenario(node, peer)
        finally:
            peer.close()
            await node.close()

    asyncio.run(main())


def test_assembly_server_that_wants_the_node_gone_says_by_which_status(tmp_path: Path) -> None:
    """By it service managers start the process again, or leave it."""
    stopped: list[bool] = []

    async def main() -> None:
        flags = parse_flags([f"--statedir={tmp_path}", "--tun=userspace-networking"], {})
        node = RunningNode(flags, Authority(), LocalApiServer(), ServiceNotifier(), lambda: stopped.append(True))
        assert node.exit_status == 0
        for code, status in ((3, 3), (0, 0), (-1, 255), (2**62 + 1, 1)):
            node._exit_asked(code)
            assert node.exit_status == status

    asyncio.run(main())
    assert len(stopped) == 4
