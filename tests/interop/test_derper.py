"""Our relay client and network check against the genuine relay server."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess

import pytest

from meshd._fast.derpframes import BUNDLE_BYTES
from meshd.wire.control import DERPMap, DERPNode, DERPRegion
from tests.unit.node.pathhost import PathHost, until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("derper") is None, reason="derper is not on PATH"),
]


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def derper(tmp_path):
    """A running derper on loopback: (DERP map, certificate path)."""
    certificate, key = tmp_path / "127.0.0.1.crt", tmp_path / "127.0.0.1.key"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    tls_port, stun_port = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen(
        [
            "derper",
            "-c",
            str(tmp_path / "config"),
            "-a",
            f"127.0.0.1:{tls_port}",
            "-http-port",
            "-1",
            "-certmode",
            "manual",
            "-certdir",
            str(tmp_path),
            "-hostname",
            "127.0.0.1",
            "-stun-port",
            str(stun_port),
        ],
        stdout=log,
        stderr=log,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", tls_port), 1):
                break
            assert server.poll() is None, (tmp_path / "log").read_text()
            asyncio.run(asyncio.sleep(0.05))
        node = DERPNode(
            name="900a", region_id=900, host_name="127.0.0.1", ipv4="127.0.0.1", ipv6="none",
            derp_port=tls_port, stun_port=stun_port, insecure_for_tests=True,
        )  # fmt: skip
        yield DERPMap(regions={900: DERPRegion(region_id=900, region_code="test", nodes=(node,))})
    finally:
        server.terminate()
        server.wait(10)
        log.close()


def run(derp_map, scenario, **options):
    async def main():
        a, b = PathHost(1, **options), PathHost(2, **options)
        try:
            async with asyncio.timeout(30):
                for host in (a, b):
                    host.magic.set_derp_map(derp_map)
                await until(lambda: a.magic.live_relays and b.magic.live_relays)
                await scenario(a, b)
        finally:
            a.close()
            b.close()
            await asyncio.sleep(0.05)

    asyncio.run(main())


def test_derper_fast_start_is_used_and_packets_pass(derper):
    async def scenario(a, b):
        link = a.magic.relay_links._links[900]
        assert link._client._server_key is not None
        a.know(b)
        b.know(a)
        outcome = await a.magic.ping(b.key)
        assert outcome.relay == 900
        a.send(b, b"session")
        await b.receive()
        for _ in range(10):  # derper queues 32 packets for a client, and drops the rest
            for n in range(20):
                a.send(b, n.to_bytes(2, "big") + bytes(1000))
            assert len({(await b.receive())[:2] for _ in range(20)}) == 20

    run(derper, scenario, deaf=True)


def test_derper_carries_the_agreement_on_bundles_and_what_is_as_long_as_one(derper):
    async def scenario(a, b):
        a.know(b)
        b.know(a)
        await a.magic.ping(b.key)  # derper knows both
        a.send(b, b"session")
        await b.receive()
        b.send(a, b"session")
        await a.receive()
        for here, there in ((a, b), (b, a)):
            await until(lambda here=here, there=there: here.plane.takes_bundles(here.engine.peer_index(there.key)))
        a.send(b, bytes(BUNDLE_BYTES))
        assert await b.receive() == bytes(BUNDLE_BYTES)

    run(derper, scenario, deaf=True)


def test_derper_without_fast_start(derper, monkeypatch):
    monkeypatch.setattr("meshd.node.derplink.relay_key", lambda engine: None)

    async def scenario(a, b):
        a.know(b)
        b.know(a)
        assert (await a.magic.ping(b.key)).relay == 900

    run(derper, scenario, deaf=True)


def test_derper_stun_and_latency(derper):
    async def scenario(a, b):
        report = await a.magic.netcheck()
        assert report.udp
        assert report.global_v4.port == a.sockets.port_v4
        assert report.preferred_derp == 900

    run(derper, scenario)


def test_derper_latency_over_https_when_udp_is_silent(derper):
    async def scenario(a, b):
        report = await a.magic.netcheck()
        assert not report.udp
        assert report.region_latency[900] < 1

    run(derper, scenario, deaf=True)


def test_derper_peer_gone_forgets_the_route(derper):
    async def scenario(a, b):
        a.know(b, home=0)
        b.know(a)
        await b.magic.ping(a.key)
        known = a.magic._paths.get(b.key)
        await until(lambda: known.heard == 900)
        b.magic.set_private_key(None)
        await until(lambda: known.heard == 0)

    run(derper, scenario, deaf=True)


def test_derper_direct_after_a_ping(derper):
    async def scenario(a, b):
        a.know(b, endpoints=())
        b.know(a, endpoints=())
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None, 1.0)

    run(derper, scenario)
