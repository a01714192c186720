"""DNS messages that come in, and those that we write ourselves."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import WireError
from meshd.wire import dnsmessage as dns

OPT_1232 = b"\0" + struct.pack("!HHIH", dns.OPT, 1232, 0, 0)


def header(
    questions: int = 1, answers: int = 0, authorities: int = 0, additions: int = 0, flags: int = 0x0100
) -> bytes:
    return dns.HEADER.pack(7, flags, questions, answers, authorities, additions)


def question(name: str, kind: int = dns.A) -> bytes:
    return dns.encode_name(name) + struct.pack("!HH", kind, dns.CLASS_IN)


def test_dns_names() -> None:
    assert dns.encode_name(".") == dns.encode_name("") == b"\0"
    assert dns.encode_name("a.b.") == b"\x01a\x01b\0"
    for bad in ("a..b", ".a", "x" * 64, "é.test", ".".join(["abcdefg"] * 40)):
        with pytest.raises(WireError):
            dns.encode_name(bad)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"\0", ""),
        (b"\x03WwW\x07Example\x03ORG\0", "www.example.org"),
        (b"\x08_dns-sd_\x04_tcp\0", "_dns-sd_._tcp"),
        (b"\x03a.b\0", r"a\.b"),
        (b"\x03a\x00b\0", r"a\000b"),
        (b"\x02\xc3\xa9\0", r"\195\169"),
        (b"\x01\\\0", "\\\\"),
    ],
)
def test_dns_name_of_any_bytes_becomes_text_that_no_other_name_has(raw: bytes, name: str) -> None:
    assert dns.decode_name(raw, 0) == (name, len(raw))


def test_dns_name_pointers_lead_backwards_only() -> None:
    message = header() + b"\x03org\0" + b"\x01a\xc0\x0c" + b"\x01b\xc0\x11"
    assert dns.decode_name(message, 17) == ("a.org", 21)
    assert dns.decode_name(message, 21) == ("b.a.org", 25)
    for bad in (b"\xc0\x0c", b"\xc0\x0d", b"\xc0\x00", b"\xc1\x00", b"\xc0", b"\x01a\xc0\x0c"):
        with pytest.raises(WireError):
            dns.decode_name(header() + bad, 12)


@pytest.mark.parametrize(
    "raw", [b"", b"\x05ab", b"\x40" + b"a" * 64 + b"\0", b"\x80a\0", (b"\x3f" + b"a" * 63) * 4 + b"\0", b"\x01a"]
)
def test_dns_name_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        dns.decode_name(header() + raw, 12)


def test_dns_name_chain_of_pointers_ends() -> None:
    """As many pointers as fit, each to the one before: no name of more than 255 bytes comes of it, and no circle."""
    message = header() + b"\x01a\0" + b"".join(b"\x01b" + struct.pack("!H", 0xC000 | at) for at in range(12, 900, 4))
    with pytest.raises(WireError):
        dns.decode_name(message, len(message) - 4)


def test_dns_query_is_read_with_its_payload_size() -> None:
    query = dns.decode_query(header(additions=1) + question("WWW.example.org") + OPT_1232)
    assert (query.number, query.name, query.kind, query.rrclass) == (7, "www.example.org", dns.A, dns.CLASS_IN)
    assert query.question == question("WWW.example.org")
    assert (query.payload, query.udp_limit, query.edns_version, query.opcode) == (1232, 1232, 0, 0)
    plain = dns.decode_query(header() + question("a"))
    assert (plain.payload, plain.opt_at, plain.udp_limit) == (0, 0, 512)
    tiny = dns.decode_query(header(additions=1) + question("a") + b"\0" + struct.pack("!HHIH", dns.OPT, 1, 0, 0))
    assert tiny.udp_limit == 512, "RFC 6891 6.2.3"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        header()[:11],
        header(),
        header() + question("a")[:-1],
        header(questions=0),
        header(questions=2) + question("a") * 2,
        header(flags=0x8180) + question("a"),
        header(additions=1) + question("a"),
        header(additions=1) + question("a") + OPT_1232[:-1],
        header(additions=2) + question("a") + OPT_1232 * 2,
        header(additions=1) + question("a") + b"\x01x" + OPT_1232,
        header(additions=1) + question("a") + OPT_1232[:-2] + b"\0\x04",
        header(answers=65535, authorities=65535, additions=65535) + question("a"),
    ],
)
def test_dns_query_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(WireError):
        dns.decode_query(message)


def test_dns_refusal_answers_requests_only() -> None:
    assert dns.refusal(header(questions=2), dns.FORMAT_ERROR) == dns.HEADER.pack(7, 0x8101, 0, 0, 0, 0)
    assert dns.refusal(header(flags=0x8000), dns.FORMAT_ERROR) is None, "two servers would go on for ever"
    assert dns.refusal(b"\0" * 11, dns.FORMAT_ERROR) is None


def test_dns_response_repeats_the_question_as_it_was_spelled() -> None:
    message = pytest.importorskip("dns.message")
    query = dns.decode_query(header(additions=1) + question("NoDe.mesh.TEST") + OPT_1232)
    records = [dns.Record(dns.A, 5, bytes([100, 64, 0, n])) for n in (1, 2)]
    parsed = message.from_wire(dns.encode_response(query, dns.SUCCESS, records, authoritative=True))
    assert str(parsed.question[0]) == "NoDe.mesh.TEST. IN A"
    assert [str(rr) for rr in parsed.answer[0]] == ["100.64.0.1", "100.64.0.2"]
    assert (parsed.id, int(parsed.flags), parsed.edns, parsed.payload) == (7, 0x8580, 0, dns.OWN_PAYLOAD)


def test_dns_response_of_no_says_how_long() -> None:
    """RFC 2308 3."""
    message = pytest.importorskip("dns.message")
    query = dns.decode_query(header() + question("no.mesh.test"))
    soa = ("mesh.test", dns.Record(dns.SOA, 10, dns.soa_data("mesh.test", 3, 10)))
    parsed = message.from_wire(dns.encode_response(query, dns.NAME_ERROR, authority=[soa]))
    assert (parsed.rcode(), parsed.edns) == (3, -1)
    assert str(parsed.authority[0]) == "mesh.test. 10 IN SOA mesh.test. mesh.test. 3 10 10 10 10"


def test_dns_response_carries_an_extended_code() -> None:
    """RFC 6891 6.1.3: an EDNS version that we do not know."""
    message = pytest.importorskip("dns.message")
    opt = b"\0" + struct.pack("!HHIH", dns.OPT, 1232, 1 << 16 | dns.DNSSEC_OK, 0)
    query = dns.decode_query(header(additions=1) + question("a") + opt)
    assert (query.edns_version, query.dnssec_ok) == (1, True)
    parsed = message.from_wire(dns.encode_response(query, dns.BAD_VERSION))
    assert (int(parsed.rcode()), parsed.edns, parsed.ednsflags & 0x8000) == (16, 0, 0x8000)


def test_dns_payload_size_is_lowered_never_raised() -> None:
    opt = b"\0" + struct.pack("!HHIH", dns.OPT, 4096, 0, 4) + b"\0\x0a\0\0"
    message = header(additions=1) + question("a") + opt
    query = dns.decode_query(message)
    lowered = dns.with_payload(message, query, 1232)
    assert dns.decode_query(lowered).payload == 1232
    assert (len(lowered), lowered[:12]) == (len(message), message[:12])
    assert dns.with_payload(message, query, 8000) == message
    plain = header() + question("a")
    assert dns.with_payload(plain, dns.decode_query(plain), 512) == plain


def test_dns_query_is_understood_by_others() -> None:
    """dnspython as the oracle."""
    message = pytest.importorskip("dns.message")
    parsed = message.from_wire(dns.encode_query(7, "www.example.org", dns.AAAA))
    assert (parsed.id, str(parsed.question[0])) == (7, "www.example.org. IN AAAA")


@given(labels=st.lists(st.binary(min_size=1, max_size=20), max_size=6), kind=st.integers(0, 65535), options=st.binary())
def test_dns_query_of_others_is_read_alike(labels: list[bytes], kind: int, options: bytes) -> None:
    """dnspython as the oracle, for names of any bytes and options of any kind."""
    name_module, message = pytest.importorskip("dns.name"), pytest.importorskip("dns.message")
    edns = pytest.importorskip("dns.edns")
    name = name_module.Name([*labels, b""])
    made = message.make_query(name, kind, use_edns=0, payload=1400, options=[edns.GenericOption(65001, options)], id=99)
    read = dns.decode_query(made.to_wire())
    assert (read.number, read.kind, read.payload) == (99, kind, 1400)
    assert name_module.from_text(read.name or ".") == name


@given(st.binary(max_size=80))
def test_dns_query_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    for message in (data, header(additions=1) + data, header() + question("a.b") + data):
        try:
            query = dns.decode_query(message)
        except WireError:
            dns.refusal(message, dns.FORMAT_ERROR)
        else:
            assert dns.decode_query(dns.with_payload(message, query, 600)).payload <= max(600, 512)
