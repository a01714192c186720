"""DNS messages."""

from __future__ import annotations

from base64 import b64decode

import pytest

from meshd.base.errors import WireError
from meshd.wire import dnsmessage as dns

RECORDED = b64decode("AAGFgAABAAEAAAAABm5vZGUtYgRtZXNoBHRlc3QAAAEAAQZub2RlLWIEbWVzaAR0ZXN0AAABAAEAAAAFAARkQAAC")


def test_dns_answer_is_as_the_reference_wrote_it() -> None:
    """RFC 1035 4.1, beside the recorded answer for a name of the network."""
    record = dns.Record(dns.A, 5, bytes([100, 64, 0, 2]))
    assert dns.encode_answer(1, "node-b.mesh.test.", dns.A, dns.SUCCESS, [record]) == RECORDED


def test_dns_answers_belong_to_their_question() -> None:
    query = dns.encode_query(1, "node-b.mesh.test", dns.A)
    assert dns.answers(query, RECORDED)
    assert not dns.answers(query, query)
    assert not dns.answers(dns.encode_query(2, "node-b.mesh.test", dns.A), RECORDED)
    assert not dns.answers(dns.encode_query(1, "node-c.mesh.test", dns.A), RECORDED)
    assert not dns.answers(query, RECORDED[:20])
    assert not dns.answers(query, b"")


def test_dns_names() -> None:
    assert dns.encode_name(".") == dns.encode_name("") == b"\0"
    assert dns.encode_name("a.b.") == b"\x01a\x01b\0"
    for bad in ("a..b", ".a", "x" * 64, "é.test", ".".join(["abcdefg"] * 40)):
        with pytest.raises(WireError):
            dns.encode_name(bad)


def test_dns_query_is_understood_by_others() -> None:
    """dnspython as the oracle."""
    message = pytest.importorskip("dns.message")
    parsed = message.from_wire(dns.encode_query(7, "www.example.org", dns.AAAA))
    assert (parsed.id, str(parsed.question[0])) == (7, "www.example.org. IN AAAA")
