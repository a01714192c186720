"""Our engine and data plane as a program of its own, for tests in network namespaces.

One JSON object on the command line configures it; each line on stdin is a command, each answer one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys

from meshd._fast.plane import Plane
from meshd.base.addr import AddrPort, parse_ip, parse_prefix
from meshd.base.keys import NodePrivate, NodePublic
from meshd.io.systemclock import SystemClock
from meshd.io.tun import open_tun
from meshd.node.engine import Engine
from meshd.node.enginepeer import EngineHooks, PeerConfig

EVERYBODY = (bytes(4), b"\xff" * 4)
ALL_PORTS = (*EVERYBODY, 0, 65535)
ALLOW_ALL = ([([EVERYBODY], [ALL_PORTS], [1, 6, 17])], [(bytes(4), 0)])


async def run(config: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    tun = open_tun(config["interface"])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("0.0.0.0", int(config["port"])))
    plane = Plane(tun_fds=[tun.fd], udp4_fd=sock.fileno(), udp6_fd=-1, vnet_header=tun.vnet_header)
    endpoint = AddrPort.parse(config["endpoint"])
    key = NodePublic(bytes.fromhex(config["peer"]))
    sessions: list[float] = []

    def follow(peer: NodePublic, source: object) -> None:
        """As WireGuard has it: whoever authenticates is answered where the message came from."""
        nonlocal endpoint
        index = engine.peer_index(peer)
        if isinstance(source, AddrPort) and index is not None:
            endpoint = source
            plane.set_path(index, source.ip.packed, source.port, 1e18, 0)

    def answer(source: object, datagram: bytes) -> None:
        if isinstance(source, AddrPort):
            sock.sendto(datagram, (str(source.ip), source.port))

    engine = Engine(
        plane,
        loop,
        SystemClock(),
        lambda _, datagram: sock.sendto(datagram, (str(endpoint.ip), endpoint.port)),
        hooks=EngineHooks(session=lambda _: sessions.append(loop.time()), authenticated=follow, answer=answer),
    )
    engine.set_private_key(NodePrivate(bytes.fromhex(config["private"])))
    engine.set_own_addresses([parse_ip(config["address"])])
    engine.set_filter(*ALLOW_ALL)
    engine.update_peer(PeerConfig(key, (parse_prefix(config["allowed"]),)))
    index = engine.peer_index(key)
    assert index is not None
    plane.set_path(index, endpoint.ip.packed, endpoint.port, 1e18, 0)
    plane.start()

    async def command(word: str) -> object:
        if word == "status":
            status = engine.peer_status(key)
            assert status is not None
            return {"endpoint": str(endpoint), "rx": status.rx_bytes, "tx": status.tx_bytes, "sessions": len(sessions)}
        if word == "ping":
            pong = await engine.ping_icmp(key, parse_ip(config["target"]), 3.0)
            return None if pong is None else pong.latency_s
        if word == "rekey":
            tunnel = engine._peers[key].tunnel
            assert tunnel is not None
            tunnel.initiate(loop.time())
            engine._settle(engine._peers[key])
            return "asked"
        return {**engine.counters(), **plane.counters()}

    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps("ready"), flush=True)
    while line := (await reader.readline()).decode().strip():
        print(json.dumps(await command(line)), flush=True)
    engine.close()
    plane.stop()
    sock.close()
    tun.close()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
