"""Messages of a map stream for tests: short constructors for nodes and responses."""

from __future__ import annotations

import json
from typing import Any

from meshd.core.mapchange import MapChange
from meshd.core.mapsession import MapSession
from meshd.wire.control import MapResponse, decode

WALL = 1_790_000_000.0
OWN_ID = 1
OWN_KEY = "nodekey:" + "01" * 32


def key(number: int) -> str:
    return f"nodekey:{number:064x}"


def node(number: int, **fields: Any) -> dict[str, Any]:
    addresses = [f"100.64.0.{number}/32", f"fd7a:115c:a1e0:ab12::{number:x}/128"]
    base = {
        "ID": number,
        "StableID": f"s{number}",
        "Name": f"n{number}.mesh.test.",
        "User": 1,
        "Key": key(number),
        "Addresses": addresses,
        "AllowedIPs": addresses,
    }
    return {**base, **fields}


def own(**fields: Any) -> dict[str, Any]:
    return node(OWN_ID, **{"Key": OWN_KEY, "MachineAuthorized": True, **fields})


def message(**fields: Any) -> MapResponse:
    return decode(MapResponse, json.dumps(fields).encode())


def send(session: MapSession, wall: float = WALL, **fields: Any) -> MapChange:
    return session.apply(message(**fields), wall)


def joined(*peers: dict[str, Any], **fields: Any) -> MapSession:
    """A session whose first message had these peers."""
    session = MapSession()
    send(session, Node=own(), Peers=list(peers), **fields)
    return session
