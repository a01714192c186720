"""Names that are asked for beside the tunnel."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core.ownhosts import needed_beside
from meshd.core.prefs import from_json
from tests.unit.core.mapworld import joined

RELAYS = {
    "Regions": {
        "1": {"RegionID": 1, "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "Relay.example.org"}]},
        "2": {"RegionID": 2, "Nodes": []},
    }
}
EXIT = {"ControlURL": "https://Control.example.org:8443/x", "ExitNodeID": "s2"}


@pytest.mark.parametrize(
    ("name", "prefs", "needed"),
    [
        ("control.example.org", EXIT, True),
        ("relay.example.org", EXIT, True),
        ("example.org", EXIT, False),
        ("x.control.example.org", EXIT, False),
        ("", EXIT, False),
        ("control.example.org", EXIT | {"ExitNodeID": "", "ExitNodeIP": "100.64.0.2"}, True),
        ("control.example.org", EXIT | {"ExitNodeID": ""}, False),
        ("controlplane.tailscale.com", {"ExitNodeID": "s2"}, True),
        ("", EXIT | {"ControlURL": "http://[bad"}, False),
    ],
)
def test_own_hosts_are_found_beside_an_exit_node(name: str, prefs: dict[str, Any], needed: bool) -> None:
    """DN-12, EX-07: the coordination server and the relays, and nothing else."""
    netmap = joined(DERPMap=RELAYS).netmap
    assert needed_beside(name, netmap, from_json(prefs)) is needed
    if name.startswith("relay"):
        assert not needed_beside(name, None, from_json(prefs))
