"""SOCKS5 messages, RFC 1928."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import WireError
from meshd.wire import socks


def test_greeting_is_read_when_whole() -> None:
    assert socks.decode_greeting(b"\x05\x02\x00") is None
    assert socks.decode_greeting(b"\x05\x02\x00\x02rest") == ([0, 2], 4)


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (b"\x05\x01\x00\x01\x64\x40\x00\x02\x00\x50", "100.64.0.2"),
        (b"\x05\x01\x00\x03\x04host\x00\x50", "host"),
        (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50", "::1"),
    ],
)
def test_request_every_address_type(raw: bytes, host: str) -> None:
    assert socks.decode_request(raw) == (socks.ConnectRequest(1, host, 80), len(raw))
    for cut in range(len(raw)):
        assert socks.decode_request(raw[:cut]) is None


@pytest.mark.parametrize("raw", [b"\x04\x01", b"\x05\x01\x00\x09\x00", b"\x05\x01\x00\x03\x01\xff\x00\x50"])
def test_request_bad_input_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        socks.decode_greeting(raw) if raw[0] != 5 else socks.decode_request(raw)


def test_reply_carries_the_bound_address() -> None:
    assert socks.encode_reply(socks.Reply.SUCCEEDED, IPv6Address(1), 7)[-2:] == b"\x00\x07"
    assert socks.encode_reply(socks.Reply.HOST_UNREACHABLE) == b"\x05\x04\x00\x01" + bytes(6)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (socks.decode_greeting, socks.decode_request):
        try:
            found = decode(data)
        except WireError:
            continue
        assert found is None or found[1] <= len(data)
