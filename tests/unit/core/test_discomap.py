"""One disco key, several nodes."""

from __future__ import annotations

from meshd.base.crypto import box_shared
from meshd.base.keys import DiscoPrivate, DiscoPublic
from meshd.core.discomap import DiscoMap

MINE = DiscoPrivate.generate(lambda n: b"\x01" * n)
THEIRS = DiscoPrivate.generate(lambda n: b"\x02" * n)


def test_discomap_key_maps_to_all_its_peers():
    peers = DiscoMap(MINE)
    peers.add(THEIRS.public(), "a")
    peers.add(THEIRS.public(), "b")
    peers.add(THEIRS.public(), "a")
    assert peers.peers(THEIRS.public().raw) == ["a", "b"]
    peers.remove(THEIRS.public(), "a")
    assert peers.peers(THEIRS.public().raw) == ["b"]


def test_discomap_last_peer_takes_the_key_with_it():
    peers = DiscoMap(MINE)
    peers.add(THEIRS.public(), "a")
    peers.remove(THEIRS.public(), "a")
    peers.remove(THEIRS.public(), "a")
    assert len(peers) == 0
    assert peers.shared(THEIRS.public().raw) is None


def test_discomap_shared_key_only_for_known_keys():
    peers = DiscoMap(MINE)
    assert peers.shared(THEIRS.public().raw) is None
    peers.add(THEIRS.public(), "a")
    assert peers.shared(THEIRS.public().raw) == box_shared(THEIRS.raw, MINE.public().raw)


def test_discomap_zero_key_ignored():
    peers = DiscoMap(MINE)
    peers.add(DiscoPublic.zero(), "a")
    assert len(peers) == 0
