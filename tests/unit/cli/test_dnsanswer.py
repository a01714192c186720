"""Reading DNS answers, friendly and hostile."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.cli.dnsanswer import Answer, read_answers

NAME = b"\x01a\x04test\x00"


def message(*records: bytes, rcode: int = 0) -> bytes:
    head = struct.pack("!6H", 1, 0x8180 | rcode, 1, len(records), 0, 0)
    return head + NAME + struct.pack("!2H", 1, 1) + b"".join(records)


def record(kind: int, data: bytes, ttl: int = 60) -> bytes:
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


@pytest.mark.parametrize(
    ("kind", "data", "shown", "body"),
    [
        (1, bytes([100, 64, 0, 1]), "TypeA", "100.64.0.1"),
        (28, bytes(15) + b"\x01", "TypeAAAA", "::1"),
        (5, b"\xc0\x0c", "TypeCNAME", "a.test."),
        (2, b"\x02ns\xc0\x0c", "TypeNS", "ns.a.test."),
        (12, NAME, "TypePTR", "a.test."),
        (15, b"\x00\x0a\xc0\x0c", "TypeMX", "a.test. (Priority=10)"),
        (33, b"\x00\x01\x00\x02\x01\xbb" + NAME, "TypeSRV", "Target=a.test., Port=443, Priority=1, Weight=2"),
        (16, b"\x03a b\x01\x1b", "TypeTXT", '["a b" "\\x1b"]'),
        (99, b"\x01\x02", "99", "0102"),
    ],
)
def test_read_answers_kinds(kind: int, data: bytes, shown: str, body: str) -> None:
    assert read_answers(message(record(kind, data))) == (
        "RCodeSuccess",
        [Answer("a.test.", 60, "ClassINET", shown, body)],
    )


def test_read_answers_rcode() -> None:
    assert read_answers(message(rcode=3)) == ("RCodeNameError", [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(record(1, b"\1\2\3\4"))[:-1],
        message(b"\xc0\xff"),
        message(b"\xc0\x18" + bytes(10)),  # a name that points at itself
        message(record(15, b"\x00")),
        message(record(33, b"\x00\x01")),
        message(b"\x40" + bytes(80)),
    ],
)
def test_read_answers_refuses(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_answers(data)


@given(st.binary(max_size=200), st.integers(0, 4))
def test_read_answers_any_bytes_give_an_answer_or_a_value_error(data: bytes, answers: int) -> None:
    try:
        read_answers(struct.pack("!6H", 1, 0x8180, 1, answers, 0, 0) + data)
    except ValueError:
        pass
