from __future__ import annotations

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import WireError
from meshd.wire import stun

V4 = AddrPort.parse("203.0.113.9:54321")
V6 = AddrPort.parse("[2001:db8::9]:54321")


def test_request_vector_both_ways(vectors):
    wanted = vectors("stun")
    txid = bytes.fromhex(wanted["txid"])
    assert stun.encode_request(txid).hex() == wanted["request"]
    assert stun.decode_request(bytes.fromhex(wanted["request"])) == txid


@pytest.mark.parametrize("source", [V4, V6])
def test_response_vector_both_ways(vectors, source):
    wanted = vectors("stun")
    txid, raw = bytes.fromhex(wanted["txid"]), bytes.fromhex(wanted[f"response_{source}"])
    assert stun.encode_response(txid, source) == raw
    assert stun.decode_response(raw) == (txid, source)
    assert stun.decode_response(raw + b"trailing") == (txid, source)


@pytest.mark.parametrize("position", range(40))
def test_request_altered_anywhere_is_not_answered(position):
    """Pitfall 6 of the data plane: only this software value with a right fingerprint is served."""
    raw = bytearray(stun.encode_request(bytes(12)))
    raw[position] ^= 0x01
    with pytest.raises(WireError):
        stun.decode_request(bytes(raw))


def test_request_of_ordinary_client_is_not_answered():
    with pytest.raises(WireError):
        stun.decode_request(b"\x00\x01\x00\x00" + stun.COOKIE + bytes(12))


def _response(*attributes: bytes) -> bytes:
    body = b"".join(attributes)
    return b"\x01\x01" + len(body).to_bytes(2, "big") + stun.COOKIE + bytes(12) + body


def test_response_xored_address_wins_over_plain_one():
    plain = bytes.fromhex("000100080001005001020304")
    odd = bytes.fromhex("8022000361626300")
    xored = stun.encode_response(bytes(12), V4)[20:]
    assert stun.decode_response(_response(odd, plain, xored)) == (bytes(12), V4)
    assert stun.decode_response(_response(odd, plain)) == (bytes(12), AddrPort.parse("1.2.3.4:80"))
    assert stun.decode_response(_response(b"\x80\x20" + xored[2:])) == (bytes(12), V4)


def test_response_mapped_ipv6_becomes_ipv4():
    value = bytes.fromhex("00020050" + "00" * 10 + "ffff01020304")
    response = _response(b"\x00\x01" + len(value).to_bytes(2, "big") + value)
    assert stun.decode_response(response)[1] == AddrPort.parse("1.2.3.4:80")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        stun.encode_request(bytes(12)),
        _response(),
        _response(b"\x00\x20\x00\x08\x00\x01\x00\x50"),
        _response(b"\x00\x20\x00\x08\x00\x03\x00\x50\x01\x02\x03\x04"),
        _response(b"\x00\x20\x00\x04\x00\x01\x00\x50"),
        _response(b"\x00\x20\xff\xff\x00\x01\x00\x50"),
        stun.encode_response(bytes(12), V6)[:-4],
    ],
)
def test_response_malformed_rejected(raw):
    with pytest.raises(WireError):
        stun.decode_response(raw)


def test_is_stun_tells_from_other_datagrams():
    assert stun.is_stun(stun.encode_request(bytes(12)))
    assert not stun.is_stun(b"\x04\x00\x00\x00" + bytes(28))
    assert not stun.is_stun(b"TS\xf0\x9f\x92\xac" + bytes(100))
    assert not stun.is_stun(stun.encode_request(bytes(12))[:19])


def test_txid_of_wrong_length_refused():
    with pytest.raises(ValueError, match="12 bytes"):
        stun.encode_request(b"short")
