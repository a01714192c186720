"""Any sequence of deltas ends in the same netmap as one full map of the final state."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import WireError
from meshd.core.mapsession import MapSession
from meshd.core.netmap import Netmap
from tests.unit.core.mapworld import OWN_KEY, WALL, key, node, own, send

IDS = st.integers(2, 7)
# Few keys and addresses, so that peers quarrel over them; 1 is ours.
KEYS = st.sampled_from([OWN_KEY, key(0), *(key(n) for n in range(2, 8))])
ADDRESSES = st.lists(st.integers(1, 8).map(lambda n: f"100.64.0.{n}/32"), max_size=3)
ROUTES = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/0", "100.64.0.3/32", "100.64.0.1/32", "127.0.0.0/8"]),
        max_size=3,
    ),
)
ENDPOINTS = st.lists(st.integers(0, 5).map(lambda n: f"192.0.2.{n}:{n}"), max_size=3)
CAPS = st.sampled_from([{}, {"x": [1]}])
SOURCES = st.sampled_from(
    ["*", "100.64.0.3", "100.64.0.4-100.64.0.6", "100.64.0.2/31", "fd7a::/16", "cap:x", "10.0.0.1"]
)
FILTER = st.lists(SOURCES, max_size=2).map(
    lambda sources: [{"SrcIPs": [s], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 1}}]} for s in sources]
)
EXPIRY = st.sampled_from(["0001-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z"])


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, Any]:
    number = draw(IDS)
    fields: dict[str, Any] = {"Key": draw(st.one_of(st.just(key(number)), KEYS)), "Endpoints": draw(ENDPOINTS)}
    if draw(st.booleans()):
        fields["Addresses"] = draw(ADDRESSES)
    routes = draw(ROUTES)
    fields["AllowedIPs"] = routes if routes is None else [*fields.get("Addresses", node(number)["Addresses"]), *routes]
    fields["KeyExpiry"] = draw(EXPIRY)
    if draw(st.booleans()):
        fields["Name"] = draw(st.sampled_from(["n2.mesh.test.", "N2.mesh.test", "same.mesh.test."]))
    fields["UnsignedPeerAPIOnly"] = draw(st.booleans())
    fields["CapMap"] = draw(CAPS)
    if draw(st.integers(0, 9)) == 0:
        fields["Addresses"] = ["10.1.2.3/8"]  # host bits: not acceptable whatever the others say
    return node(number, **fields)


@st.composite
def patches(draw: st.DrawFn) -> dict[str, Any]:
    patch: dict[str, Any] = {"NodeID": draw(IDS)}
    options = {
        "Endpoints": ENDPOINTS,
        "DERPRegion": st.integers(1, 9),
        "Key": KEYS,
        "Online": st.booleans(),
        "KeyExpiry": EXPIRY,
        "CapMap": CAPS,
    }
    for name in draw(st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True)):
        patch[name] = draw(options[name])
    return patch


MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "Node": st.sampled_from([own(), own(Key=key(5)), own(Addresses=["100.64.0.4/32"])]),
        "Peers": st.lists(nodes(), min_size=1, max_size=4, unique_by=lambda n: n["ID"]),
        "PeersChanged": st.lists(nodes(), max_size=3),
        "PeersRemoved": st.lists(IDS, max_size=2),
        "OnlineChange": st.dictionaries(IDS.map(str), st.booleans(), max_size=2),
        "PeerSeenChange": st.dictionaries(IDS.map(str), st.booleans(), max_size=2),
        "PeersChangedPatch": st.lists(patches(), max_size=3),
        "PacketFilter": FILTER,
    },
)


class Reference:
    """The server's view, kept in the plainest way: dictionaries of JSON."""

    def __init__(self) -> None:
        self.own = own()
        self.peers: dict[int, dict[str, Any]] = {}
        self.filter: list[dict[str, Any]] = []

    def apply(self, fields: dict[str, Any]) -> None:
        self.own = fields.get("Node", self.own)
        self.filter = fields.get("PacketFilter", self.filter)
        if fields.get("Peers"):
            self.peers = {n["ID"]: n for n in fields["Peers"]}
            return
        for number in fields.get("PeersRemoved", ()):
            self.peers.pop(number, None)
        for changed in fields.get("PeersChanged", ()):
            self.peers[changed["ID"]] = changed
        seen = {True: "2026-09-21T14:13:20Z", False: None}
        for number, value in fields.get("PeerSeenChange", {}).items():
            self._set(int(number), LastSeen=seen[value])
        for number, value in fields.get("OnlineChange", {}).items():
            self._set(int(number), Online=value)
        for patch in fields.get("PeersChangedPatch", ()):
            names = {"DERPRegion": "HomeDERP"}
            self._set(patch["NodeID"], **{names.get(k, k): v for k, v in patch.items() if k != "NodeID"})

    def _set(self, number: int, **fields: Any) -> None:
        # A node that the client cannot even parse is not there to be patched; whole nodes replace it.
        if number in self.peers and self.peers[number]["Addresses"] != ["10.1.2.3/8"]:
            self.peers[number] = {**self.peers[number], **fields}


def picture(netmap: Netmap) -> tuple[Any, ...]:
    refused = {n: r.name for n, r in netmap.refused.items()}  # of several reasons any may be the one shown
    lets_in = netmap.filter_rules, netmap.invalid_filter
    return netmap.self_node, netmap.peers, netmap.by_key, netmap.by_ip, netmap.by_name, refused, lets_in


@given(st.lists(MESSAGES, max_size=8))
def test_mapsession_deltas_equal_the_full_map(messages: list[dict[str, Any]]) -> None:
    """NM-03, and that the outcome does not depend on how the messages were cut."""
    session, reference = MapSession(), Reference()
    send(session, Node=own())
    for fields in messages:
        before = dict(session.netmap.peers)  # type: ignore[union-attr]
        change = send(session, **fields)
        reference.apply(fields)
        fresh = MapSession()
        whole = [reference.peers[n] for n in sorted(reference.peers)]
        send(fresh, Node=reference.own, Peers=whole, PacketFilter=reference.filter)
        assert session.netmap is not None
        assert fresh.netmap is not None
        assert picture(session.netmap) == picture(fresh.netmap)
        # the change says exactly how one became the other
        rebuilt = {n: before[n] for n in before if n not in {gone.id for gone in change.removed}}
        rebuilt |= {n.id: n for n in change.added} | {n.id: n for _, n in change.changed + change.patched}
        assert rebuilt == session.netmap.peers


@given(st.lists(MESSAGES, max_size=5), st.lists(MESSAGES, max_size=5))
def test_mapsession_second_stream_equals_a_first_one(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    """State left over from an earlier stream has no influence."""
    session, fresh = MapSession(), MapSession()
    send(session, Node=own())
    for fields in one:
        send(session, **fields)
    session.begin_stream()
    for side in (session, fresh):
        send(side, Node=own())
        for fields in two:
            send(side, **fields)
    assert session.netmap is not None
    assert fresh.netmap is not None
    assert picture(session.netmap) == picture(fresh.netmap)


def _mutate(value: Any, draw: Any) -> Any:
    """The value with one part of it replaced by something unexpected."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: _mutate(value[name], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _mutate(value[at], draw), *value[at + 1 :]]
    return draw(ODDITIES)


ODDITIES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**63 - 1, 2**70, 5.0, "", [], {}, "*", "::", "1::2::3/128", "0.0.0.0/0", "::ffff:1.2.3.4/128"]
    ),
    st.sampled_from(
        ["[fe80::1%x]:1", "1.2.3.4:0", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-01-01T00:00:00-23:59"]
    ),
    st.text(max_size=5),
    st.just([None]),
)
EVERYTHING = {
    "Node": own(KeyExpiry="2030-01-01T00:00:00Z", CapMap={"a": [1]}),
    "Peers": [node(2, Endpoints=["192.0.2.1:1"], DERP="127.3.3.40:1", Hostinfo={"OS": "linux"}, Tags=["tag:a"])],
    "PeersChangedPatch": [
        {"NodeID": 2, "Endpoints": ["192.0.2.1:1"], "Key": key(3), "LastSeen": "2026-01-01T00:00:00Z"}
    ],
    "PeersRemoved": [3],
    "OnlineChange": {"2": True},
    "PeerSeenChange": {"2": True},
    "PacketFilters": {"base": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 1}}]}]},
    "PacketFilter": [],
    "DERPMap": {
        "Regions": {"1": {"RegionID": 1, "Nodes": [{"Name": "1a"}]}},
        "HomeParams": {"RegionScore": {"1": 1.0}},
    },
    "DNSConfig": {"Routes": {"x": []}, "ExtraRecords": [{"Name": "a", "Value": "1.2.3.4"}]},
    "UserProfiles": [{"ID": 1, "LoginName": "u"}],
    "TKAInfo": {"Head": "A"},
    "Debug": {"SleepSeconds": 1.5, "Exit": 1},
    "ControlTime": "2026-01-01T00:00:00Z",
    "PingRequest": {"URL": "https://x", "Payload": "aGk="},
    "Health": ["x"],
    "SSHPolicy": {"rules": []},
}


@given(st.data())
def test_mapsession_odd_messages_are_taken_or_refused_whole(data: st.DataObject) -> None:
    """Whatever a server sends: a change, or WireError and the netmap as it was."""
    session = MapSession()
    send(session, Node=own(), Peers=[node(2), node(4)])
    for _ in range(3):
        odd = _mutate(dict(EVERYTHING), data.draw)
        assert session.netmap is not None
        before = picture(session.netmap)
        before = (before[0], dict(before[1]), dict(before[2]), dict(before[3]), dict(before[4]), *before[5:])
        try:
            send(session, **odd) if isinstance(odd, dict) else None
        except WireError:
            assert picture(session.netmap) == before
        session.expire(WALL + 1e9)
