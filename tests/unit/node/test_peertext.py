"""The status as text is the status that the encoder writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.keys import NodePublic
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.state import State
from meshd.feature.localapi import jsontext
from meshd.feature.localapi.jsontext import indented, status_response
from meshd.node.status import PeerTraffic, Snapshot, status_json, status_parts
from meshd.wire.control import Hostinfo, Location, Service, UserProfile

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TIMES = st.one_of(st.none(), st.floats(-1e9, 5e9), st.integers(0, 2**32).map(float))
V4 = st.integers(1, 250).map(lambda n: ip_network(f"100.64.0.{n}/32"))
V6 = st.sampled_from(["fd7a:115c:a1e0::5/128", "::5/128", "::ffff:1.2.3.4/128", "2001:db8::/128"]).map(ip_network)
ROUTES = st.sampled_from(["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8", "10.1.2.3/32"]).map(ip_network)
SERVICES = st.lists(
    st.builds(Service, proto=st.sampled_from(["peerapi4", "peerapi6", "tcp"]), port=st.integers(0, 65535)), max_size=3
).map(tuple)
PLACES = st.one_of(st.none(), st.builds(Location, country=TEXTS, city=TEXTS, priority=st.integers(0, 9)))
HOSTS = st.one_of(
    st.none(),
    st.builds(
        Hostinfo,
        os=TEXTS,
        hostname=TEXTS,
        services=SERVICES,
        ssh_host_keys=st.lists(TEXTS, max_size=2).map(tuple),
        sharee_node=st.booleans(),
        location=PLACES,
    ),
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-9, 9), st.none()), lambda v: st.dictionaries(TEXTS, v), max_leaves=3
)
CAPS = st.dictionaries(TEXTS, st.one_of(st.none(), st.lists(VALUES, max_size=2)), max_size=3)
TRAFFIC = st.builds(
    PeerTraffic,
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    TIMES,
    TIMES,
    st.sampled_from(["", "1.2.3.4:5", "[::1]:2"]),
    TEXTS,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


async def joined(body: bytes | AsyncIterator[bytes]) -> bytes:
    return body if isinstance(body, bytes) else b"".join([part async for part in body])


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, Any]:
    addresses = tuple(draw(st.lists(st.one_of(V4, V6), max_size=3)))
    same = draw(st.booleans())
    return {
        "stable_id": draw(TEXTS),
        "name": draw(TEXTS),
        "user": draw(st.integers(0, 2**62)),
        "sharer": draw(st.sampled_from([0, 7])),
        "addresses": addresses,
        "allowed_ips": addresses if same else (*addresses, *draw(st.lists(ROUTES, max_size=3))),
        "primary_routes": tuple(draw(st.lists(ROUTES, max_size=2))),
        "tags": tuple(draw(st.lists(TEXTS, max_size=2))),
        "hostinfo": draw(HOSTS),
        "created": draw(TIMES),
        "last_seen": draw(TIMES),
        "key_expiry": draw(TIMES),
        "online": draw(st.sampled_from([None, True, False])),
        "expired": draw(st.booleans()),
        "cap_map": draw(CAPS),
    }


@given(st.lists(nodes(), max_size=4), TRAFFIC, TEXTS)
def test_status_parts_make_the_bytes_of_the_whole(
    fields: list[dict[str, Any]], traffic: PeerTraffic, chosen: str
) -> None:
    """Scripts read the same status however many peers there are."""

    def made(number: int, **given: Any) -> Node:
        return Node(id=number, key=NodePublic(number.to_bytes(32, "big")), **given)

    netmap = Netmap(made(1, stable_id="s", name='self"\n\t"Peer": {}', user=7, addresses=(), allowed_ips=()))
    netmap.user_profiles = {7: UserProfile(id=7, login_name='\n\t"Peer": {}')}
    for number, given_fields in enumerate(fields, 2):
        netmap.peers[number] = made(number, **given_fields)
    snapshot = Snapshot(
        client_version=None,
        version="0",
        tun=True,
        state=State.RUNNING,
        has_node_key=True,
        auth_url="",
        netmap=netmap,
        prefs=Prefs(exit_node_id=chosen),
        health=[],
        own_relay="",
        own_endpoints=[],
        in_map_poll=True,
        host_name="host",
        traffic=lambda _: traffic,
    )
    assert status_response(*status_parts(snapshot)).body == indented(status_json(snapshot))
    with patch.object(jsontext, "SLICE", 2):
        body = status_response(*status_parts(snapshot)).body
        assert asyncio.run(joined(body)) == indented(status_json(snapshot))


def test_status_parts_without_a_network_are_the_whole() -> None:
    snapshot = Snapshot(
        "0", True, State.STOPPED, False, "", None, Prefs(), [], "", [], None, False, "host", lambda _: PeerTraffic()
    )
    assert status_response(*status_parts(snapshot)).body == indented(status_json(snapshot))
