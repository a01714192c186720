"""A peer that knows us by another address, through the whole data plane."""

from __future__ import annotations

from meshd._fast.packet import transport_checksum
from meshd._fast.plane import EV_STAGED
from tests.reference.packet import checksum
from tests.unit.fast.packets import A4, B4, ip, udp
from tests.unit.fast.planepair import PLAIN_HEADER, pair

SHOWN4 = bytes([100, 80, 9, 9])


def whole(body: bytes, src: bytes, dst: bytes) -> bytes:
    packet = bytearray(ip(17, udp(1000, 53, body), src, dst))
    packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
    pseudo = src + dst + bytes((0, 17)) + (len(packet) - 20).to_bytes(2, "big")
    packet[26:28] = checksum(pseudo + bytes(packet[20:])).to_bytes(2, "big")
    return bytes(packet)


def test_plane_peer_sees_the_shown_address_and_answers_to_it() -> None:
    """RT-02: a sends from its own address, b sees the shown one, and what b sends there reaches a."""
    with pair() as nodes:
        nodes.b.plane.add_route(nodes.peer_of_b, SHOWN4, 32)
        nodes.a.plane.set_masquerade(nodes.peer_of_a, [(A4, SHOWN4)])
        nodes.a.write(whole(b"there", A4, B4))
        received = nodes.b.read()[len(PLAIN_HEADER) :]
        assert received == whole(b"there", SHOWN4, B4)
        assert transport_checksum(received) == 0
        nodes.b.write(whole(b"back", B4, SHOWN4))
        assert nodes.a.read()[len(PLAIN_HEADER) :] == whole(b"back", B4, A4)
        # Its own packets, too, and no longer when that ends.
        assert nodes.a.plane.send_packet(nodes.peer_of_a, whole(b"own", A4, B4))
        assert nodes.b.read()[len(PLAIN_HEADER) :] == whole(b"own", SHOWN4, B4)
        nodes.a.plane.set_masquerade(nodes.peer_of_a, [])
        nodes.a.write(whole(b"plain", A4, B4))
        assert nodes.b.read()[len(PLAIN_HEADER) :] == whole(b"plain", A4, B4)


def test_plane_packets_that_waited_for_a_session_show_the_same_address() -> None:
    with pair(session=False) as nodes:
        nodes.b.plane.add_route(nodes.peer_of_b, SHOWN4, 32)
        nodes.a.plane.set_masquerade(nodes.peer_of_a, [(A4, SHOWN4)])
        nodes.a.write(whole(b"early", A4, B4))
        _, peer, staged = nodes.a.event(EV_STAGED)
        nodes.session()
        assert nodes.a.plane.send_staged(peer, [staged]) == 1
        assert nodes.b.read()[len(PLAIN_HEADER) :] == whole(b"early", SHOWN4, B4)


def test_plane_masquerade_of_a_peer_ends_with_it() -> None:
    with pair() as nodes:
        nodes.a.plane.set_masquerade(nodes.peer_of_a, [(A4, SHOWN4)])
        nodes.a.plane.remove_peer(nodes.peer_of_a)
        nodes.peer_of_a = nodes.a.plane.add_peer(b"C" * 32)
        nodes.a.plane.add_route(nodes.peer_of_a, B4, 32)
        nodes.connect()
        nodes.b.plane.clear_sessions(nodes.peer_of_b)
        nodes.session(index=1)
        nodes.a.write(whole(b"anew", A4, B4))
        assert nodes.b.read()[len(PLAIN_HEADER) :] == whole(b"anew", A4, B4)
