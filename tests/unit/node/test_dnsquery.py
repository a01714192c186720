"""DNS questions of local programs."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.node import dnsquery
from meshd.wire import dnsmessage as dns
from tests.unit.core.mapworld import joined, node

CONFIG: dict[str, Any] = {"Proxied": True, "Domains": ["mesh.test"]}


@pytest.fixture(autouse=True)
def _no_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsquery, "_system", lambda: ())


class Resolver(asyncio.DatagramProtocol):
    """Answers every question, after a message that is no answer to it."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(b"junk", addr)
        self.transport.sendto(data[:2] + b"\x81\x80" + data[4:], addr)


def test_dns_query_of_the_network_is_answered_here() -> None:
    netmap = joined(node(2), DNSConfig=CONFIG).netmap
    got = asyncio.run(dnsquery.query_json(netmap, "n2.mesh.test", ""))
    assert b64decode(got["Bytes"]).endswith(bytes([100, 64, 0, 2]))
    assert got["Resolvers"] is None


def test_dns_query_of_others_goes_to_a_resolver() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", 0))
        host, port = transport.get_extra_info("sockname")
        config = CONFIG | {"Resolvers": [{"Addr": "https://no.example"}, {"Addr": f"{host}:{port}"}]}
        netmap = joined(DNSConfig=config).netmap
        got = await dnsquery.query_json(netmap, "example.org", "mx")
        message = b64decode(got["Bytes"])
        assert dns.answers(dns.encode_query(int.from_bytes(message[:2], "big"), "example.org", 15), message)
        assert [r["Addr"] for r in got["Resolvers"]] == ["https://no.example", f"{host}:{port}"]
        transport.close()

    asyncio.run(run())


def test_dns_query_that_nobody_answers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsquery, "PATIENCE_S", 0.01)
    silent = joined(DNSConfig=CONFIG | {"Resolvers": [{"Addr": "127.0.0.1:9"}]}).netmap
    with pytest.raises(MeshdError, match="no resolver answered: 127.0.0.1:9"):
        asyncio.run(dnsquery.query_json(silent, "example.org", "A"))
    with pytest.raises(MeshdError, match="no resolver is known"):
        asyncio.run(dnsquery.query_json(None, "example.org", "A"))
    with pytest.raises(MeshdError, match="unknown DNS message type: NONSENSE"):
        asyncio.run(dnsquery.query_json(None, "example.org", "nonsense"))
    with pytest.raises(MeshdError, match="label"):
        asyncio.run(dnsquery.query_json(silent, "a..b", "A"))
