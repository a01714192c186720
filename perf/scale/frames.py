"""Map messages of networks of any size, as a coordination server frames them: zstd of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from meshd.base.keys import NodePrivate
from meshd.wire.mapframe import encode_map_frame

JSON = dict[str, Any]

OWN_PRIVATE = NodePrivate(bytes(range(32)))
REGIONS = 8
PEERS_PER_MESSAGE = 50_000  # more would not fit into the largest message a client accepts
GROUPS = 100  # filter rules that share all peers among them
SELF_V4 = "100.64.0.1"
SELF_V6 = "fd7a:115c:a1e0::1"


def sizes(text: str) -> list[int]:
    """An option's value: numbers of peers, separated by commas."""
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError("a network has at least one peer")
    return numbers


def key(kind: str, number: int, generation: int = 0) -> str:
    """A key in text form, different for every number and generation."""
    return f"{kind}:{number + 1:016x}{generation:08x}{'a5' * 20}"


def v4(number: int) -> str:
    value = 0x64400000 + 256 + number
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def v6(number: int) -> str:
    return f"fd7a:115c:a1e0::{(number >> 16) + 1:x}:{number & 0xFFFF:x}"


def peer(number: int, *, generation: int = 0) -> JSON:
    """One peer as Headscale describes it: two addresses, two endpoints, a short Hostinfo."""
    addresses = [f"{v4(number)}/32", f"{v6(number)}/128"]
    return {
        "ID": number + 2,
        "StableID": f"n{number + 2}",
        "Name": f"host-{number}.example.ts.net.",
        "User": number % 50 + 1,
        "Key": key("nodekey", number, generation),
        "KeyExpiry": "2036-01-01T00:00:00Z",
        "Machine": key("mkey", number),
        "DiscoKey": key("discokey", number, generation),
        "Addresses": addresses,
        "AllowedIPs": addresses,
        "Endpoints": endpoints(number, generation),
        "HomeDERP": number % REGIONS + 1,
        "Hostinfo": {"OS": "linux", "Hostname": f"host-{number}"},
        "Created": "2026-01-01T00:00:00Z",
        "Cap": 113,
        "Online": True,
        "MachineAuthorized": True,
    }


def endpoints(number: int, generation: int) -> list[str]:
    host = f"{number >> 8 & 255}.{number & 255}"
    return [f"198.18.{host}:{41641 + generation}", f"10.7.{host}:41641"]


def rule(numbers: range, port: int) -> JSON:
    """These peers may reach one port of ours."""
    sources = [text for number in numbers for text in (v4(number), v6(number))]
    ports = {"First": port, "Last": port}
    return {"SrcIPs": sources, "DstPorts": [{"IP": SELF_V4, "Ports": ports}, {"IP": SELF_V6, "Ports": ports}]}


def whole(size: int) -> bytes:
    """The beginning of a stream: ourselves, all peers, relays, filter; in as few messages as can carry it."""
    step = max(1, size // GROUPS)
    filters = {f"group-{n}": [rule(range(n * step, (n + 1) * step), 1000 + n)] for n in range(min(GROUPS, size))}
    filters["single"] = [rule(range(1), 80)]
    regions = {
        str(n): {
            "RegionID": n,
            "RegionCode": f"r{n}",
            "Nodes": [{"Name": f"{n}a", "RegionID": n, "HostName": f"relay{n}.invalid", "STUNPort": -1}],
        }
        for n in range(1, REGIONS + 1)
    }
    own = {
        **peer(0),
        "ID": 1,
        "StableID": "n1",
        "Name": "self.example.ts.net.",
        "Key": OWN_PRIVATE.public().text(),
        "Addresses": [f"{SELF_V4}/32", f"{SELF_V6}/128"],
        "AllowedIPs": [f"{SELF_V4}/32", f"{SELF_V6}/128"],
    }
    users = [{"ID": n, "LoginName": f"user{n}@example.com", "DisplayName": f"User {n}"} for n in range(1, 51)]
    first = frame(
        {
            "Node": own,
            "Peers": [peer(n) for n in range(min(size, PEERS_PER_MESSAGE))],
            "DERPMap": {"Regions": regions},
            "Domain": "example.com",
            "UserProfiles": users,
            "PacketFilters": filters,
        }
    )
    starts = range(PEERS_PER_MESSAGE, size, PEERS_PER_MESSAGE)
    further = [range(start, min(size, start + PEERS_PER_MESSAGE)) for start in starts]
    return first + b"".join(frame({"PeersChanged": [peer(n) for n in some]}) for some in further)


def deltas(size: int) -> dict[str, Iterator[bytes]]:
    """Endless messages of one change each, by the name of the change."""
    return {
        "endpoint patch": (
            frame({"PeersChangedPatch": [{"NodeID": n % size + 2, "Endpoints": endpoints(n % size, 1 + n // size)}]})
            for n in _spread(size)
        ),
        "online flag": (
            frame({"PeersChangedPatch": [{"NodeID": n % size + 2, "Online": n // size % 2 == 1}]})
            for n in _spread(size)
        ),
        "key change": (frame({"PeersChanged": [peer(n % size, generation=2 + n // size)]}) for n in _spread(size)),
        "peer added": (frame({"PeersChanged": [peer(size + n)]}) for n in _count()),
        "peer removed": (frame({"PeersRemoved": [size + n + 2]}) for n in _count()),
        "filter rule changed": (frame({"PacketFilters": {"single": [rule(range(1), 81 + n % 900)]}}) for n in _count()),
    }


def frame(message: JSON) -> bytes:
    return encode_map_frame(orjson.dumps(message), True)


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _spread(size: int) -> Iterator[int]:
    """Numbers whose remainders go over all peers in strides, so that neighbours in memory do not help."""
    stride = max(1, int(size * 0.618)) | 1
    while size > 1 and size % stride == 0:
        stride += 2
    for number in _count():
        yield number // size * size + number * stride % size
