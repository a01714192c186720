"""Several changes of peers as one: what is told at the end is what the steps together did."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from meshd.core.mapchange import MapChange, joined
from meshd.core.node import Node
from tests.unit.core.mapworld import joined as joined_network
from tests.unit.core.mapworld import key, node, send


def test_mapchange_joined_is_the_difference_between_first_and_last() -> None:
    session = joined_network(node(2), node(3), node(4))
    netmap = session.netmap
    assert netmap is not None
    before = dict(netmap.peers)
    steps = [
        send(session, PeersChangedPatch=[{"NodeID": 2, "DERPRegion": 7}]),
        send(session, PeersChangedPatch=[{"NodeID": 2, "DERPRegion": 8}]),
        send(session, PeersRemoved=[3]),
        send(session, PeersChanged=[node(5)]),
        send(session, PeersChangedPatch=[{"NodeID": 5, "Online": True}]),
        send(session, PeersChanged=[node(4, Key=key(44))]),
        send(session, PeersChangedPatch=[{"NodeID": 4, "DERPRegion": 9}]),
        send(session, PeersChanged=[node(6)]),
        send(session, PeersRemoved=[6]),
    ]
    assert all(step.only_peers for step in steps)
    change = joined(steps)
    assert change.patched == [(before[2], netmap.peers[2])]
    assert change.changed == [(before[4], netmap.peers[4])]
    assert change.removed == [before[3]]
    assert change.added == [netmap.peers[5]]
    assert change.only_peers


def test_mapchange_joined_peer_that_left_and_came_back_has_changed() -> None:
    session = joined_network(node(2))
    assert session.netmap is not None
    before = session.netmap.peers[2]
    change = joined([send(session, PeersRemoved=[2]), send(session, PeersChanged=[node(2)])])
    assert (change.changed, change.added, change.removed) == ([(before, session.netmap.peers[2])], [], [])


def play(peers: dict[int, Node], change: MapChange) -> None:
    """What somebody who only hears of changes knows."""
    for gone in change.removed:
        del peers[gone.id]
    for new in change.added:
        assert new.id not in peers
        peers[new.id] = new
    for old, new in (*change.changed, *change.patched):
        assert peers[new.id] == old
        peers[new.id] = new


def random_step(choice: random.Random) -> dict[str, object]:
    number = choice.randrange(2, 8)
    return choice.choice(
        [
            {"PeersRemoved": [number]},
            {"PeersChanged": [node(number, Key=key(choice.randrange(2, 12)))]},
            {"PeersChangedPatch": [{"NodeID": number, "DERPRegion": choice.randrange(1, 5)}]},
            {"OnlineChange": {str(number): choice.random() < 0.5}},
        ]
    )


@pytest.mark.parametrize("seed", range(60))
def test_mapchange_joined_tells_a_listener_the_same_as_the_steps(seed: int) -> None:
    choice = random.Random(seed)
    session = joined_network(node(2), node(3), node(4))
    assert session.netmap is not None
    known = dict(session.netmap.peers)
    steps: Sequence[MapChange] = [send(session, **random_step(choice)) for _ in range(choice.randrange(1, 15))]
    play(known, joined(step for step in steps if step.only_peers))
    assert known == session.netmap.peers
