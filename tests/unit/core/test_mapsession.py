"""The delta rules of the map stream, one by one, and a recorded session of a genuine server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import WireError
from meshd.base.keys import NodePublic
from meshd.core import mapsession
from meshd.core.mapsession import NO_TRUSTED_CLOCK_BEFORE, MapSession
from meshd.core.node import Node
from meshd.core.unsignedpeers import admits_unsigned
from meshd.wire.control import FilterRule, MapResponse, decode
from tests.unit.core.mapworld import OWN_KEY, WALL, joined, key, node, own, send

RECORDED = Path(__file__).parents[2] / "vectors" / "control_recorded.json"
ALLOW_ALL = [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}]


def test_mapsession_recorded_headscale_session_ends_without_peer() -> None:
    """NM-02, NM-03: rename, route approval, offline, online and deletion of the only peer."""
    session = MapSession()
    changes = []
    for entry in json.loads(RECORDED.read_text())["messages"]:
        if "map" in entry:
            changes.append(session.apply(decode(MapResponse, json.dumps(entry["map"]).encode()), WALL))
            assert session.netmap is not None
            if len(changes) == 5:
                assert session.netmap.peers[1].name == "peer-renamed.mesh.test."
    first = changes[0]
    assert first.full
    assert [n.id for n in first.added] == [1]
    assert first.added[0].home_derp == 900
    assert first.added[0].endpoints == (AddrPort.parse("192.0.2.2:43339"),)
    netmap = session.netmap
    assert netmap is not None
    assert netmap.peers == {}
    assert [n.id for c in changes for n in c.removed] == [1]
    assert any(c.changed for c in changes)
    assert netmap.magic_dns_suffix == "mesh.test"
    assert netmap.self_node.name == "recorder.mesh.test."
    assert netmap.by_key == {netmap.self_node.key: 0}
    assert set(netmap.by_ip.values()) == {0}
    assert netmap.by_name == {}


def test_mapsession_first_message_without_node_is_refused() -> None:
    session = MapSession()
    with pytest.raises(WireError, match="no Node"):
        send(session, Peers=[node(2)])
    assert session.netmap is None


def test_mapsession_keep_alive_ignores_everything_else() -> None:
    session = joined(node(2))
    change = send(session, KeepAlive=True, PeersRemoved=[2], PingRequest={"URL": "https://x/1"})
    assert change.keep_alive
    assert change.ping is not None
    assert session.netmap is not None
    assert 2 in session.netmap.peers


def test_mapsession_peers_replaces_all_and_shadows_the_other_fields() -> None:
    session = joined(node(2), node(3))
    change = send(session, Peers=[node(3), node(4)], PeersRemoved=[3], OnlineChange={"3": True})
    assert session.netmap is not None
    assert sorted(session.netmap.peers) == [3, 4]
    assert session.netmap.peers[3].online is None
    assert ([n.id for n in change.added], [n.id for n in change.removed]) == ([4], [2])


def test_mapsession_empty_peers_list_changes_nothing() -> None:
    session = joined(node(2))
    assert send(session, Peers=[]).is_empty
    assert session.netmap is not None
    assert 2 in session.netmap.peers


def test_mapsession_patch_beats_change_in_one_message() -> None:
    """Removed, changed, seen, online, patched: in that order, also for a node just added."""
    session = joined(node(2), node(3))
    change = send(
        session,
        PeersRemoved=[2, 99],
        PeersChanged=[node(4, Online=True, HomeDERP=1)],
        PeerSeenChange={"4": True},
        OnlineChange={"4": True, "77": True},
        PeersChangedPatch=[{"NodeID": 4, "DERPRegion": 9, "Online": False}, {"NodeID": 88, "DERPRegion": 1}],
    )
    assert session.netmap is not None
    assert sorted(session.netmap.peers) == [3, 4]
    peer = session.netmap.peers[4]
    assert (peer.home_derp, peer.online, peer.last_seen) == (9, False, WALL)
    assert change.added == [peer]


def test_mapsession_patch_touches_only_what_it_names() -> None:
    before = node(2, Endpoints=["192.0.2.1:1"], CapMap={"a": [1]}, Cap=100, KeyExpiry="2027-01-01T00:00:00Z")
    session = joined(before)
    assert session.netmap is not None
    old = session.netmap.peers[2]
    change = send(session, PeersChangedPatch=[{"NodeID": 2, "Online": False}])
    [(was, new)] = change.patched
    assert was is old
    assert new.online is False
    assert (new.endpoints, new.cap_map, new.cap, new.key_expiry) == (old.endpoints, old.cap_map, 100, old.key_expiry)
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": [], "CapMap": {}, "KeyExpiry": "0001-01-01T00:00:00Z"}])
    new = session.netmap.peers[2]
    assert (new.endpoints, new.cap_map, new.key_expiry) == ((), {}, None)


def test_mapsession_patched_key_moves_the_index() -> None:
    session = joined(node(2))
    change = send(session, PeersChangedPatch=[{"NodeID": 2, "Key": key(0x22), "DiscoKey": "discokey:" + "5" * 64}])
    assert session.netmap is not None
    assert session.netmap.peer_by_key(NodePublic.parse(key(2))) is None
    assert session.netmap.peer_by_key(NodePublic.parse(key(0x22))) is session.netmap.peers[2]
    assert [old.id for old, _ in change.changed] == [2]


def test_mapsession_late_goodbye_of_an_old_process_is_dropped() -> None:
    """A patch with disco key and offline that is older than what we know is a stale report."""
    session = joined(node(2, Online=True, LastSeen="2026-01-02T00:00:00Z"))
    stale = {"NodeID": 2, "DiscoKey": "discokey:" + "5" * 64, "Online": False, "LastSeen": "2026-01-01T00:00:00Z"}
    assert send(session, PeersChangedPatch=[stale]).is_empty
    fresh = {**stale, "LastSeen": "2026-01-03T00:00:00Z"}
    assert send(session, PeersChangedPatch=[fresh]).patched
    never = {**stale, "DiscoKey": "discokey:" + "6" * 64, "LastSeen": "0001-01-01T00:00:00Z"}
    assert send(session, PeersChangedPatch=[never]).is_empty


def test_mapsession_goodbye_with_a_disco_key_and_no_time_is_taken() -> None:
    session = joined(node(2, Online=True, LastSeen="2026-01-02T00:00:00Z"))
    send(session, PeersChangedPatch=[{"NodeID": 2, "DiscoKey": "discokey:" + "5" * 64, "Online": False}])
    assert session.netmap is not None
    peer = session.netmap.peers[2]
    assert peer.online is False
    assert peer.disco_key is not None


def test_mapsession_seen_false_forgets_the_time() -> None:
    session = joined(node(2, LastSeen="2026-01-02T00:00:00Z"))
    send(session, PeerSeenChange={"2": False})
    assert session.netmap is not None
    assert session.netmap.peers[2].last_seen is None


def test_mapsession_allowed_ips_null_means_addresses_and_empty_means_none() -> None:
    session = joined(node(2, AllowedIPs=None), node(3, AllowedIPs=[]))
    assert session.netmap is not None
    assert session.netmap.peers[2].allowed_ips == session.netmap.peers[2].addresses
    assert session.netmap.peers[3].allowed_ips == ()


def test_mapsession_default_routes_are_kept_and_marked() -> None:
    routes = [*node(2)["Addresses"], "0.0.0.0/0", "::/0"]
    session = joined(node(2, AllowedIPs=routes), node(3, AllowedIPs=[*node(3)["Addresses"], "0.0.0.0/0"]))
    assert session.netmap is not None
    assert session.netmap.peers[2].offers_exit
    assert not session.netmap.peers[3].offers_exit


def test_mapsession_home_derp_falls_back_to_the_old_field() -> None:
    session = joined(node(2, DERP="127.3.3.40:7"), node(3, DERP="127.3.3.40:7", HomeDERP=9), node(4, DERP="x"))
    assert session.netmap is not None
    assert [session.netmap.peers[n].home_derp for n in (2, 3, 4)] == [7, 9, 0]


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        ([{"PacketFilter": ALLOW_ALL}], 1),
        ([{"PacketFilter": ALLOW_ALL}, {"PacketFilter": None}], 1),
        ([{"PacketFilter": ALLOW_ALL}, {"PacketFilter": []}], 0),
        ([{"PacketFilters": {"base": ALLOW_ALL, "b": ALLOW_ALL}}], 2),
        ([{"PacketFilters": {"base": ALLOW_ALL}}, {"PacketFilters": {"base": None}}], 0),
        ([{"PacketFilters": {"a": ALLOW_ALL}}, {"PacketFilters": {"*": None, "b": ALLOW_ALL * 3}}], 3),
        ([{"PacketFilters": {"a": ALLOW_ALL}}, {"PacketFilters": {}}], 1),
    ],
)
def test_mapsession_filters_follow_the_patch_rules(steps: list[dict], rules: int) -> None:
    session = joined(**steps[0])
    for step in steps[1:]:
        send(session, **step)
    assert session.netmap is not None
    assert len(session.netmap.filter_rules) == rules


def test_mapsession_filter_that_admits_an_unsigned_peer_blocks_all() -> None:
    """PF-09: a peer outside tailnet lock must never be able to reach us; the filter returns when it left."""
    session = joined(PacketFilter=ALLOW_ALL)
    assert session.netmap is not None
    change = send(session, PeersChanged=[node(2, UnsignedPeerAPIOnly=True, AllowedIPs=["10.0.0.0/8"])])
    assert change.filter_changed
    assert session.netmap.filter_rules == ()
    assert session.netmap.invalid_filter
    assert session.netmap.peers[2].allowed_ips == session.netmap.peers[2].addresses
    assert send(session, PeersRemoved=[2]).filter_changed
    assert len(session.netmap.filter_rules) == 1


def test_mapsession_filter_is_held_against_unsigned_peers_only_when_either_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PF-09: a filter has thousands of sources; a message about something else does not look at them."""
    looks: list[int] = []

    def look(rules: Iterable[FilterRule], unsigned: Sequence[Node]) -> bool:
        looks.append(len(unsigned))
        return admits_unsigned(rules, unsigned)

    monkeypatch.setattr(mapsession, "admits_unsigned", look)
    rules = [{**ALLOW_ALL[0], "SrcIPs": ["100.64.0.3", "100.64.0.8", "cap:x"]}]
    session = joined(node(2, UnsignedPeerAPIOnly=True), node(3), PacketFilter=rules)
    netmap = session.netmap
    assert netmap is not None
    assert looks == [1]
    send(session, PeersChangedPatch=[{"NodeID": 3, "DERPRegion": 4}, {"NodeID": 2, "DERPRegion": 4}])
    send(session, OnlineChange={"2": True, "3": True})
    assert looks == [1]
    moved: list[tuple[dict[str, Any], bool]] = [
        ({"PeersChangedPatch": [{"NodeID": 2, "CapMap": {"x": None}}]}, False),
        ({"PeersChanged": [node(2, UnsignedPeerAPIOnly=True, Addresses=["100.64.0.8/32"])]}, True),
        ({"PeersRemoved": [2]}, False),
        ({"PeersChanged": [node(3, UnsignedPeerAPIOnly=True)]}, True),
        ({"PacketFilter": []}, False),
        ({"PacketFilter": rules}, True),
        ({"PeersChanged": [node(3)]}, False),
    ]
    for fields, invalid in moved:
        send(session, **fields)
        assert netmap.invalid_filter is invalid
    assert looks == [1, 1, 0, 1, 1, 1, 0]


def test_mapsession_settings_absent_means_unchanged() -> None:
    session = joined(
        Domain="mesh.test",
        DNSConfig={"Proxied": True},
        Health=["bad"],
        SSHPolicy={"rules": []},
        UserProfiles=[{"ID": 1, "LoginName": "u"}],
        TKAInfo={"Head": "ABC"},
        DERPMap={"Regions": {"1": {"RegionID": 1, "Nodes": []}}},
    )
    netmap = session.netmap
    assert netmap is not None
    assert send(session, Domain="", UserProfiles=[]).is_empty
    assert netmap.lock_head == "ABC"
    assert netmap.user_of(netmap.self_node) is not None
    change = send(session, Health=[], DNSConfig={}, TKAInfo={"Disabled": True}, DERPMap={"Regions": {}})
    assert change.health_changed
    assert change.dns_changed
    assert change.lock_changed
    assert change.derp_changed
    assert netmap.messages == {}
    assert netmap.dns is not None
    assert not netmap.dns.proxied
    assert netmap.lock_disabled


def test_mapsession_new_stream_that_repeats_changes_nothing() -> None:
    """NM-02: a reconnect must not disturb anything: nodes keep their identity."""
    first = {"Node": own(), "Peers": [node(2), node(3)], "PacketFilter": ALLOW_ALL, "Domain": "d"}
    session = MapSession()
    send(session, **first)
    assert session.netmap is not None
    before = dict(session.netmap.peers)
    session.begin_stream()
    change = send(session, **first)
    assert change.full
    assert not change.peers_changed
    assert not change.self_changed
    assert not change.filter_changed
    assert all(session.netmap.peers[n] is before[n] for n in before)


def test_mapsession_new_stream_starts_empty() -> None:
    """What the new first message leaves out is gone: peers, filters, DNS, tailnet lock."""
    session = joined(node(2), PacketFilter=ALLOW_ALL, DNSConfig={"Proxied": True}, TKAInfo={"Head": "A"}, Domain="d")
    session.begin_stream()
    change = send(session, Node=own())
    netmap = session.netmap
    assert netmap is not None
    assert [n.id for n in change.removed] == [2]
    assert (netmap.peers, netmap.filter_rules, netmap.dns, netmap.lock_head, netmap.domain) == ({}, (), None, "", "")


def test_mapsession_broken_message_changes_nothing() -> None:
    session = joined(node(2))
    assert session.netmap is not None
    with pytest.raises(WireError):
        send(session, PeersRemoved=[2], PeersChanged=[node(3, Addresses=["1::2::3/128"])])
    assert sorted(session.netmap.peers) == [2]


def test_mapsession_urls_are_acted_on_once() -> None:
    session = joined()
    assert send(session, PopBrowserURL="https://a", PingRequest={"URL": "p"}).pop_browser_url == "https://a"
    again = send(session, PopBrowserURL="https://a", PingRequest={"URL": "p"})
    assert (again.pop_browser_url, again.ping) == ("", None)


def test_mapsession_debug_is_bounded() -> None:
    session = joined()
    change = send(session, Debug={"SleepSeconds": 1e9, "Exit": 0, "DisableLogTail": True})
    assert (change.sleep_seconds, change.exit_code, change.disable_log_upload) == (300.0, 0, True)


YEAR = 365 * 86400.0


def test_mapsession_expired_peer_is_disabled() -> None:
    """LK-12: bad key, no endpoints, no relay; by the server's clock; never unmarked by time."""
    session = joined(node(2, KeyExpiry="2026-09-21T15:00:00Z", Endpoints=["192.0.2.1:1"], HomeDERP=1))
    netmap = session.netmap
    assert netmap is not None
    delay = session.next_expiry(WALL)
    assert delay is not None
    assert session.expire(WALL + delay - 1).is_empty
    change = session.expire(WALL + delay + 1)
    [(_, expired)] = change.changed
    assert expired.expired
    assert expired.key.short() == "[bad01]"[:1] + "bad01]"
    assert (expired.endpoints, expired.home_derp) == ((), 0)
    assert session.next_expiry(WALL) is None
    send(session, PeersChangedPatch=[{"NodeID": 2, "KeyExpiry": "2030-01-01T00:00:00Z"}])
    assert not netmap.peers[2].expired


def test_mapsession_server_clock_decides_and_nonsense_is_ignored() -> None:
    """LK-12: offsets over a minute count; a server's clock that was never set does not, nor does one of ours."""
    session = MapSession()
    send(session, Node=own(), ControlTime="2026-09-21T14:14:00Z", Peers=[node(2, KeyExpiry="2001-01-01T00:00:00Z")])
    assert session.netmap is not None
    assert session.netmap.peers[2].expired
    session = MapSession()
    send(session, Node=own(), ControlTime="2020-01-01T00:00:00Z", Peers=[node(2, KeyExpiry="2001-01-01T00:00:00Z")])
    assert session.netmap is not None
    assert not session.knows_server_clock
    assert session.netmap.peers[2].expired
    assert session.control_wall(NO_TRUSTED_CLOCK_BEFORE - 1) is None


def test_mapsession_clock_set_by_years_expires_nobody() -> None:
    """LK-12: the server's time goes on as it was, whoever sets our clock; until the next word of the server."""
    session = joined(node(2, KeyExpiry="2026-12-01T00:00:00Z"), ControlTime="2026-09-21T14:13:20Z")
    assert session.netmap is not None
    for step in (10 * YEAR, -40 * YEAR):
        session.clock_stepped(step)
        assert session.control_wall(WALL + step) == WALL
        assert session.expire(WALL + step).is_empty
        send(session, WALL + step, PeersChangedPatch=[{"NodeID": 2, "Online": True}])
        assert not session.netmap.peers[2].expired
        session.clock_stepped(-step)


def test_mapsession_clock_that_ran_ahead_takes_back_what_it_expired() -> None:
    """LK-12: without a word of the server about the time our clock is believed, but not for ever."""
    session = joined(node(2, KeyExpiry="2026-12-01T00:00:00Z", Endpoints=["192.0.2.1:1"], HomeDERP=1), node(3))
    netmap = session.netmap
    assert netmap is not None
    whole = netmap.peers[2]
    session.clock_stepped(10 * YEAR)
    [(_, expired)] = session.expire(WALL + 10 * YEAR).changed
    assert expired.expired
    [(_, back)] = session.expire(WALL).changed
    assert back == whole
    delay = session.next_expiry(WALL)
    assert delay is not None
    assert session.expire(WALL + delay + 1).changed
    [(_, told)] = send(session, WALL + delay + 2, ControlTime="2026-09-21T14:13:20Z", UserProfiles=[]).changed
    assert told == whole


@pytest.mark.parametrize("gone", [{"Node": own(), "Peers": [node(3)]}, {"PeersRemoved": [2]}])
def test_mapsession_clock_moved_back_by_the_message_that_drops_an_expired_peer(gone: dict[str, Any]) -> None:
    """LK-12: the peer that our fast clock had disabled is gone; this message and later ones are taken."""
    session = joined(node(2, KeyExpiry="2026-12-01T00:00:00Z"), node(3))
    netmap = session.netmap
    assert netmap is not None
    session.expire(WALL + YEAR)
    assert netmap.peers[2].expired
    change = send(session, WALL + YEAR, ControlTime="2026-09-21T14:13:20Z", **gone)
    assert [n.id for n in change.removed] == [2]
    assert sorted(netmap.peers) == [3]
    assert send(session, WALL + YEAR, PeersChangedPatch=[{"NodeID": 3, "DERPRegion": 9}]).patched


def test_mapsession_own_expiry_is_one_to_wait_for() -> None:
    """LK-09: the next expiry may be ours, and is the server's to judge."""
    session = MapSession()
    send(session, Node=own(KeyExpiry="2026-09-21T15:13:20Z"), Peers=[node(2, KeyExpiry="2026-12-01T00:00:00Z")])
    assert session.next_expiry(WALL) == 3600
    assert not session.own_key_expired(WALL)
    assert session.own_key_expired(WALL + 3600)
    later = session.next_expiry(WALL + 3600)
    assert later is not None
    assert later > 86400


def test_mapsession_small_clock_difference_is_delay() -> None:
    session = joined(ControlTime="2026-09-21T14:13:50Z")
    assert abs(session.clock_offset) <= 60
    assert session.control_wall(WALL) == WALL + session.clock_offset


def test_netmap_nodes_that_somebody_holds_never_change() -> None:
    """INV-4: a change puts another object in the place; who kept the former one still reads what was true then."""
    session = joined(node(2, Endpoints=["192.0.2.1:1"]))
    assert session.netmap is not None
    kept = session.netmap.peers[2]
    copy = msgspec.structs.asdict(kept)
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": ["192.0.2.2:2"], "DERPRegion": 7}])
    send(session, OnlineChange={"2": True})
    send(session, PeersChanged=[node(2, Name="other.mesh.test.")])
    assert session.netmap.peers[2] != kept
    assert msgspec.structs.asdict(kept) == copy
    with pytest.raises(AttributeError):
        kept.online = True  # type: ignore[misc]


def test_netmap_lookups() -> None:
    """NM-05, NM-06, INV-5: names match in any case, with or without the dot at their end."""
    session = joined(node(2), UserProfiles=[{"ID": 1, "LoginName": "u@x"}])
    netmap = session.netmap
    assert netmap is not None
    assert netmap.node_by_ip(parse_ip("100.64.0.1")) is netmap.self_node
    assert netmap.peer_by_ip(parse_ip("100.64.0.1")) is None
    assert netmap.node_by_ip(parse_ip("100.64.0.2")) is netmap.peers[2]
    assert netmap.peer_by_key(NodePublic.parse(OWN_KEY)) is None
    for name in ("n2", "N2.mesh.test", "n2.mesh.test."):
        assert netmap.node_by_name(name) is netmap.peers[2]
    assert netmap.node_by_name("n1") is netmap.self_node
    assert netmap.node_by_name("") is None
    assert netmap.user_of(netmap.peers[2]).login_name == "u@x"  # type: ignore[union-attr]


def test_mapsession_filter_names_are_bounded() -> None:
    session = joined()
    with pytest.raises(WireError, match="packet filters"):
        send(session, PacketFilters={f"f{n}": [] for n in range(2000)})
    session.begin_stream()
    assert send(session, Node=own(), PacketFilters={"a": ALLOW_ALL}).filter_changed


def test_mapsession_messages_of_control_are_patched_and_begin_anew_with_a_stream() -> None:
    """HE-01: DisplayMessages over the messages of one stream."""
    session = MapSession()
    send(session, Node=own(), DisplayMessages={"a": {"Title": "A"}, "b": {"Title": "B"}})
    netmap = session.netmap
    assert netmap is not None
    assert list(netmap.messages) == ["a", "b"]
    assert send(session, DisplayMessages={"a": None}).health_changed
    assert list(netmap.messages) == ["b"]
    assert send(session, Domain="x").health_changed is False
    session.begin_stream()
    send(session, Node=own())
    assert netmap.messages == {}


def test_mapsession_prepares_what_a_reconnect_repeats_without_a_second_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All nodes twice would be the most memory that a large network ever takes."""
    monkeypatch.setattr(mapsession, "SLICE", 3)
    peers = [node(number) for number in range(2, 12)]
    session = MapSession()
    send(session, Node=own(), Peers=peers)
    assert session.netmap is not None
    known = dict(session.netmap.peers)
    session.begin_stream()
    peers[5] = {**peers[5], "Name": "another.mesh.test."}
    message = {"Node": own(), "Peers": peers}
    response = decode(MapResponse, json.dumps(message).encode())
    for _ in session.prepare(response):
        pass
    assert session._prepared is not None
    [fresh] = [outcome for wire, outcome, _ in session._prepared[1] if outcome is not known[wire.id]]
    change = session.apply(response, WALL)
    assert [new for _, new in change.changed] == [fresh]
    assert not change.added
    assert not change.removed
