from __future__ import annotations

import pytest

from meshd.base.addr import parse_ip
from meshd.node.netstack import answer
from meshd.wire.ippacket import Echo, UDPDatagram, decode_echo, decode_ip, encode_echo, encode_udp


@pytest.mark.parametrize(("ours", "theirs"), [("100.64.0.1", "100.64.0.2"), ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2")])
def test_answer_echo_request_to_us_gets_its_reply(ours, theirs):
    ours, theirs = parse_ip(ours), parse_ip(theirs)
    packet = decode_ip(answer(encode_echo(theirs, ours, Echo(False, 7, 9, b"payload")), (ours,)))
    assert (packet.source, packet.destination) == (ours, theirs)
    assert decode_echo(packet) == Echo(True, 7, 9, b"payload")


def test_answer_is_silent_to_everything_else():
    ours, theirs, other = (parse_ip(f"100.64.0.{n}") for n in (1, 2, 3))
    request = encode_echo(theirs, ours, Echo(False, 7, 9, b"payload"))
    assert answer(encode_echo(theirs, other, Echo(False, 7, 9, b"")), (ours,)) is None
    assert answer(encode_echo(theirs, ours, Echo(True, 7, 9, b"")), (ours,)) is None
    assert answer(encode_udp(theirs, ours, UDPDatagram(1, 2, b"x")), (ours,)) is None
    assert answer(request[:-1] + b"\xff", (ours,)) is None, "wrong checksum"
    assert answer(request[:21], (ours,)) is None
    assert answer(b"", (ours,)) is None
