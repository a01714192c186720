"""Peers on the notify bus: who gets which form of a change."""

from __future__ import annotations

import asyncio
from typing import Any

from meshd.node.bus import PEER_CHANGES, NotifyBus, Watcher
from meshd.node.peernews import patch_json, tell_peers
from tests.unit.core.mapworld import joined, node, send

BITS = {"RateLimit": 1 << 8, "PeerChanges": 1 << 12, "PeerPatches": 1 << 15}


def drained(watcher: Watcher) -> list[dict[str, Any]]:
    found = list(watcher._queue)
    watcher._queue.clear()
    return found


def test_peernews_full_map_lists_everybody_for_those_who_asked() -> None:
    """watch:PeerChanges: NB, features 7.5."""
    bus = NotifyBus()
    plain, whole = bus.watch(0), bus.watch(PEER_CHANGES)
    session = joined(node(2), node(3), UserProfiles=[{"ID": 1, "LoginName": "a"}])
    tell_peers(bus, session.netmap, None)
    (news,) = drained(whole)
    assert [peer["ID"] for peer in news["PeersChanged"]] == [2, 3]
    assert news["UserProfiles"] == {"1": {"ID": 1, "LoginName": "a", "DisplayName": ""}}
    assert drained(plain) == []


def test_peernews_full_map_after_a_break_names_those_who_went_meanwhile() -> None:
    """watch:PeerChanges: a watcher keeps what it knows until it is told otherwise."""
    bus = NotifyBus()
    whole = bus.watch(PEER_CHANGES)
    session = joined(node(2), node(3))
    session.begin_stream()
    tell_peers(bus, session.netmap, send(session, Node=node(1), Peers=[node(2), node(4)]))
    (news,) = drained(whole)
    assert [peer["ID"] for peer in news["PeersChanged"]] == [2, 4]
    assert news["PeersRemoved"] == [3]


def test_peernews_delta_names_added_changed_and_removed() -> None:
    """NM-13, watch:PeerChanges."""
    bus = NotifyBus()
    whole = bus.watch(PEER_CHANGES)
    session = joined(node(2), node(3))
    change = send(session, PeersChanged=[node(4), node(2, Name="other.mesh.test.")], PeersRemoved=[3])
    tell_peers(bus, session.netmap, change)
    (news,) = drained(whole)
    assert sorted(peer["ID"] for peer in news["PeersChanged"]) == [2, 4]
    assert news["PeersRemoved"] == [3]


def test_peernews_delta_tells_the_users_that_changed_and_no_others() -> None:
    """watch:PeerChanges: a network may have thousands of them."""
    bus = NotifyBus()
    whole = bus.watch(PEER_CHANGES)
    session = joined(node(2), UserProfiles=[{"ID": number, "LoginName": "a"} for number in (1, 2, 3)])
    change = send(session, UserProfiles=[{"ID": 1, "LoginName": "a"}, {"ID": 3, "LoginName": "b"}])
    tell_peers(bus, session.netmap, change)
    assert drained(whole) == [{"UserProfiles": {"3": {"ID": 3, "LoginName": "b", "DisplayName": ""}}}]


def test_peernews_patch_is_narrow_or_promoted_to_a_whole_node() -> None:
    """NM-13: a watcher of changes alone sees every change, as whole nodes; one of patches gets the fields."""
    bus = NotifyBus()
    whole, narrow = bus.watch(BITS["PeerChanges"]), bus.watch(BITS["PeerPatches"])
    session = joined(node(2))
    patch = {"NodeID": 2, "Online": True, "Endpoints": ["192.0.2.1:5"], "DERPRegion": 4}
    change = send(session, PeersChangedPatch=[patch])
    tell_peers(bus, session.netmap, change)
    (news,) = drained(whole)
    assert [(peer["ID"], peer["Online"], peer["HomeDERP"]) for peer in news["PeersChanged"]] == [(2, True, 4)]
    assert "PeerChangedPatch" not in news
    (news,) = drained(narrow)
    assert news == {"PeerChangedPatch": [patch]}


def test_peernews_nobody_watches_costs_nothing() -> None:
    bus = NotifyBus()
    plain = bus.watch(0)
    session = joined(node(2))
    tell_peers(bus, session.netmap, send(session, PeersRemoved=[2]))
    assert drained(plain) == []


def test_patch_json_says_when_a_patch_is_not_enough() -> None:
    """watch:PeerPatches."""
    session = joined(node(2))
    before = session.netmap.peers[2]
    send(session, PeersChanged=[node(2, Name="new.mesh.test.")])
    assert patch_json(before, session.netmap.peers[2]) is None


def test_bus_rate_limit_keeps_the_last_of_a_burst() -> None:
    """NB: a watcher with that bit gets engine statistics every few seconds, everything else at once."""

    async def run() -> None:
        bus = NotifyBus()
        slow = bus.watch(BITS["RateLimit"] | 1)
        for number in range(3):
            bus.send({"Engine": {"RBytes": number}})
        bus.send({"State": 6})
        assert drained(slow) == [{"Engine": {"RBytes": 0}}, {"State": 6}]
        slow._release()
        assert drained(slow) == [{"Engine": {"RBytes": 2}}]
        bus.close()

    asyncio.run(run())
