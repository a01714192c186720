"""The fake must stay in step with the real data plane."""

from __future__ import annotations

import inspect
from ipaddress import IPv4Network

from meshd._fast import plane
from meshd.base.crypto import aead_open
from meshd.testing import fakeplane
from meshd.testing.clock import FakeClock
from meshd.testing.fakeplane import FakePlane

ONLY_REAL = {"add_route", "remove_route", "set_filter", "set_udp", "set_offload", "thread_reads"}
ONLY_FAKE = {"tun_write", "receive_udp", "close"}


def _public(cls):
    return {name for name in dir(cls) if not name.startswith("_")} - {"event_fd"}


def test_fake_has_the_methods_of_the_real_plane():
    """PP-16."""
    assert _public(plane.Plane) - ONLY_REAL == _public(FakePlane) - ONLY_FAKE


def test_fake_has_the_peer_state_of_the_real_plane():
    assert fakeplane.PeerState._fields == plane.PeerState._fields


def test_fake_pads_to_sixteen_bytes_but_not_beyond_the_mtu():
    """Another implementation did not pad its payload."""
    sent = []
    fake = FakePlane(FakeClock(), lambda address, port, data: sent.append(data), lambda packet: None, mtu=1280)
    peer = fake.add_peer(bytes(32))
    fake.set_routes(peer, [IPv4Network("10.0.0.1")])
    fake.set_path(peer, bytes(4), 1, 1e9, 0)
    fake.install_session(
        peer,
        slot="current",
        local_index=1,
        remote_index=2,
        send_key=b"s" * 32,
        receive_key=b"r" * 32,
        created=1000.0,
        initiator=True,
    )
    for size in (20, 41, 48, 1279, 1280):
        fake.tun_write(b"\x45" + bytes(15) + bytes([10, 0, 0, 1]) + bytes(size - 20))
    assert [len(data) - 32 for data in sent] == [32, 48, 48, 1280, 1280]
    assert aead_open(b"s" * 32, bytes(12), sent[0][16:])[:1] == b"\x45"
    fake.close()


def test_signatures_of_shared_methods_name_the_same_arguments():
    for name in _public(FakePlane) - ONLY_FAKE - {"start", "stop"}:
        fake = list(inspect.signature(getattr(FakePlane, name)).parameters)
        try:
            real = list(inspect.signature(getattr(plane.Plane, name)).parameters)
        except ValueError:  # the compiler kept no signature
            continue
        assert [argument for argument in real if argument != "send_counter"] == fake, name
