"""Parts of map messages that are ignored on request."""

from __future__ import annotations

import pytest

from meshd.base.errors import MeshdError
from meshd.core.mapstrip import Strip, strip_switches
from meshd.wire.control import MapResponse, decode

MESSAGE = decode(
    MapResponse,
    b"""{"Node": {"ID": 1, "CapMap": {"https": null}, "Capabilities": ["x"], "Endpoints": ["192.0.2.9:1"]},
    "Peers": [{"ID": 2, "Endpoints": ["192.0.2.1:1"], "HomeDERP": 3, "DERP": "127.3.3.40:3"}],
    "PeersChanged": [{"ID": 4, "Endpoints": ["192.0.2.2:1"], "HomeDERP": 5}],
    "PeersChangedPatch": [{"NodeID": 6, "Endpoints": ["192.0.2.3:1"], "DERPRegion": 7, "Cap": 100}]}""",
)


def test_strip_nothing_is_the_message_itself() -> None:
    assert strip_switches({}) == Strip()
    assert Strip().apply(MESSAGE) is MESSAGE


def test_strip_endpoints_of_peers_only() -> None:
    """TS_DEBUG_STRIP_ENDPOINTS."""
    left = strip_switches({"TS_DEBUG_STRIP_ENDPOINTS": "1"}).apply(MESSAGE)
    assert left.peers[0].endpoints == left.peers_changed[0].endpoints == ()
    assert left.peers_changed_patch[0].endpoints is None
    assert left.peers_changed_patch[0].cap == 100
    assert left.peers[0].home_derp == 3
    assert left.node is not None
    assert left.node.endpoints == ("192.0.2.9:1",)


def test_strip_home_relays_of_peers() -> None:
    """TS_DEBUG_STRIP_HOME_DERP."""
    left = strip_switches({"TS_DEBUG_STRIP_HOME_DERP": "1"}).apply(MESSAGE)
    assert [(p.home_derp, p.derp) for p in (*left.peers, *left.peers_changed)] == [(0, ""), (0, "")]
    assert left.peers_changed_patch[0].derp_region == 0
    assert left.peers[0].endpoints == ("192.0.2.1:1",)


def test_strip_capabilities_of_this_node() -> None:
    """TS_DEBUG_STRIP_CAPS."""
    left = strip_switches({"TS_DEBUG_STRIP_CAPS": "true"}).apply(MESSAGE)
    assert left.node is not None
    assert (left.node.capabilities, left.node.cap_map) == ((), {})


def test_strip_refuses_other_words() -> None:
    with pytest.raises(MeshdError, match="TS_DEBUG_STRIP_CAPS"):
        strip_switches({"TS_DEBUG_STRIP_CAPS": "maybe"})
