"""Responses of other resolvers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.wire import dnsmessage as dns
from meshd.wire import dnsresponse

QUERY = dns.encode_query(1, "node-b.mesh.test", dns.A)
QUESTION = QUERY[12:]


def response(answers: int = 1, *, number: int = 1, more: int = 0, opt: bool = False, extra: bytes = b"") -> bytes:
    record = b"\xc0\x0c" + struct.pack("!HHIH", dns.A, 1, 5, 4)
    body = b"".join(record + bytes([10, 0, 0, n]) for n in range(answers + more))
    tail = b"\0" + struct.pack("!HHIH", dns.OPT, 1232, 0x8000, len(extra)) + extra if opt else b""
    return dns.HEADER.pack(number, 0x8180, 1, answers, more, int(opt)) + QUESTION + body + tail


def test_dns_answers_belong_to_their_question() -> None:
    """DN-12: what was not asked is not taken, whoever sends it."""
    good = response()
    assert dnsresponse.answers(QUERY, QUESTION, good)
    assert dnsresponse.answers(QUERY, QUESTION, good.replace(b"node-b", b"NODE-B"))
    other = dns.encode_query(1, "node-c.mesh.test", dns.A)
    assert not dnsresponse.answers(QUERY, QUESTION, QUERY), "a question is no answer"
    assert not dnsresponse.answers(QUERY, QUESTION, response(number=2))
    assert not dnsresponse.answers(other, other[12:], good)
    assert not dnsresponse.answers(QUERY, QUESTION, good.replace(QUESTION, QUESTION[:-3] + b"\x1c\0\x01"))
    assert not dnsresponse.answers(QUERY, QUESTION, good[:2] + b"\xa9\x80" + good[4:]), "of an UPDATE"
    assert not dnsresponse.answers(QUERY, QUESTION, good[:4] + b"\0\x02" + good[6:])
    assert not dnsresponse.answers(QUERY, QUESTION, good[:20])
    for number, offset in ((65, -4), (97, -4), (65, -2), (97, -2)):
        kind = QUESTION[:offset] + struct.pack("!H", number) + QUESTION[len(QUESTION) + offset + 2 :]
        same = good.replace(QUESTION, kind)
        assert dnsresponse.answers(QUERY[:12] + kind, kind, same)
        swapped = QUESTION[:offset] + struct.pack("!H", number ^ 32) + QUESTION[len(QUESTION) + offset + 2 :]
        assert not dnsresponse.answers(QUERY[:12] + swapped, swapped, same), "HTTPS is 65, a letter as a byte"
    assert not dnsresponse.answers(QUERY, QUESTION, b"")


def test_dns_failures_may_come_without_the_question() -> None:
    failure = dns.HEADER.pack(1, 0x8101, 0, 0, 0, 0)
    assert dnsresponse.answers_without_question(QUERY, failure)
    assert not dnsresponse.answers_without_question(QUERY, dns.HEADER.pack(1, 0x8100, 0, 0, 0, 0)), "no failure"
    assert not dnsresponse.answers_without_question(QUERY, dns.HEADER.pack(2, 0x8101, 0, 0, 0, 0))
    assert not dnsresponse.answers_without_question(QUERY, dns.HEADER.pack(1, 0x0101, 0, 0, 0, 0))
    assert not dnsresponse.answers_without_question(QUERY, failure[:11])
    assert not dnsresponse.answers_without_question(QUERY, response())


def test_dns_response_for_another_asker_has_its_number_and_spelling() -> None:
    asked = QUESTION.replace(b"node", b"NoDe")
    got = dnsresponse.for_asker(response(), 0xABCD, asked)
    assert got[:2] == b"\xab\xcd"
    assert got[12 : 12 + len(asked)] == asked
    assert got[12 + len(asked) :] == response()[12 + len(asked) :]


def test_dns_response_that_is_too_long_is_cut_between_answers() -> None:
    """RFC 2181 9, and for the sake of those who never come by TCP."""
    message = pytest.importorskip("dns.message")
    long = response(100, more=3, opt=True, extra=b"\0\x0a\0\x02ab")
    assert dnsresponse.cut(long, QUESTION, len(long)) == long
    assert not dnsresponse.is_truncated(long)
    cut = dnsresponse.cut(long, QUESTION, 512)
    assert dnsresponse.is_truncated(cut)
    parsed = message.from_wire(cut)
    assert 480 < len(cut) <= 512
    assert [len(section) for section in (parsed.answer[0], parsed.authority)] == [29, 0]
    assert (parsed.payload, parsed.ednsflags & 0x8000) == (1232, 0x8000)
    nothing = message.from_wire(dnsresponse.cut(response(100), QUESTION, 40))
    assert nothing.answer == []


def test_dns_response_that_is_too_long_and_damaged_keeps_its_question() -> None:
    bad = dns.HEADER.pack(1, 0x8180, 1, 100, 0, 0) + QUESTION + b"\xff" * 600
    assert dnsresponse.cut(bad, QUESTION, 512) == dns.HEADER.pack(1, 0x8380, 1, 0, 0, 0) + QUESTION


@given(rest=st.binary(max_size=900), counts=st.tuples(*[st.integers(0, 65535)] * 3), limit=st.integers(512, 800))
def test_dns_response_of_any_bytes_is_cut_to_the_limit(rest: bytes, counts: tuple[int, int, int], limit: int) -> None:
    message = dns.HEADER.pack(1, 0x8180, 1, *counts) + QUESTION + rest
    assert len(dnsresponse.cut(message, QUESTION, limit)) <= limit
