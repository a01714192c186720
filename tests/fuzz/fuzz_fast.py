"""Fuzz targets of the modules of `_fast` as Python calls them, beside their plain twins in `tests/reference`.

The C functions below have loops of their own, see `native.py`.
"""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_interface
from random import Random
from typing import Any

from meshd._fast import addresstext, coalesce, ipprefix, packet, segment
from meshd._fast.filter import Filter, FlowTable
from meshd._fast.jsonnames import NameTable
from tests.fuzz.hostile import Hostile
from tests.fuzz.target import target
from tests.reference import coalesce as coalesce_twin
from tests.reference import filter as filter_twin
from tests.reference import flow as flow_twin
from tests.reference import jsonnames as jsonnames_twin
from tests.reference import packet as packet_twin
from tests.reference import segment as segment_twin
from tests.unit.fast import offload, viapackets
from tests.unit.fast.packets import A4, A6, B4, B6

_FIELDS = ("version", "proto", "tcp_flags", "icmp_type", "src", "dst", "src_port", "dst_port", "total_bytes")


def _packets() -> list[bytes]:
    hostile = Hostile(Random(2))
    return [made[:300] for made in (hostile.packet(inward=True) for _ in range(200)) if made]


@target(seeds=_packets, limit=400)
def fuzz_packet_headers(data: bytes) -> None:
    wanted = packet_twin.parse(data)
    try:
        found = packet.parse(data)
    except ValueError as error:
        assert isinstance(wanted, str)
        assert str(error).endswith(wanted)
        return
    assert not isinstance(wanted, str)
    assert all(getattr(found, name) == getattr(wanted, name) for name in _FIELDS)
    assert packet.checksum(data) == packet_twin.checksum(data)


def _super_packets() -> list[bytes]:
    out = []
    for version in (4, 6):
        for make in (offload.super_tcp, offload.super_udp):
            header, whole = make(bytes(range(250)), 60, version=version)
            out.append(header + whole)
    return out


@target(seeds=_super_packets, limit=420)
def fuzz_segments(data: bytes) -> None:
    if len(data) > 10:
        wanted = segment_twin.split(data[:10], data[10:])
        try:
            found: list[bytes] | None = segment.split(data[:10], data[10:])
        except ValueError:
            found = None
        assert found == wanted


def _batches() -> list[bytes]:
    out = []
    for version in (4, 6):
        for make in (offload.super_tcp, offload.super_udp):
            header, whole = make(bytes(range(160)), 40, version=version)
            pieces = segment.split(header, whole)
            out += [b"".join(bytes([len(p)]) + p for p in some) for some in (pieces, pieces[::-1])]
    return out


def _cut(data: bytes) -> list[bytes]:
    """A batch: a byte for the length before each packet."""
    pieces, at = [], 0
    while at < len(data) and len(pieces) < 128:
        piece = data[at + 1 : at + 1 + data[at]]
        at += 1 + len(piece)
        if piece:
            pieces.append(piece)
    return pieces


@target(seeds=_batches, limit=700)
def fuzz_merging(data: bytes) -> None:
    batch = _cut(data)
    assert coalesce.coalesce(batch) == coalesce_twin.coalesce(batch)


_ADDRESSES = {
    4: [A4, B4, bytes(4), b"\xff" * 4, bytes([10, 0, 0, 0]), bytes([10, 0, 0, 255])],
    6: [A6, B6, bytes(16), b"\xff" * 16, A6[:8] + bytes(8), A6[:8] + b"\xff" * 8],
}


def _rules(data: bytes) -> tuple[list[Any], list[tuple[bytes, int]]]:
    """Six bytes are a rule: its sources, a target, ports and a protocol."""
    rules: list[Any] = []
    local: list[tuple[bytes, int]] = [(B4, 32), (B6, 128)]
    for at in range(0, len(data) - 5, 6):
        kind, source, other, to, port, protocol = data[at : at + 6]
        family = 4 if kind & 1 else 6
        known = _ADDRESSES[family]
        first, last = sorted((known[source % 6], known[other % 6]))
        low, high = sorted((known[to % 6], known[(to >> 4) % 6]))
        ports = (0, 65535) if kind & 2 else (port & 7, (port & 7) + (port >> 5))
        rules.append(([(first, last)], [(low, high, *ports)], ((6, 17, 132, 1, 58, 47)[protocol % 6],)))
        if kind & 4:
            local.append((known[to % 6], (0, 8, 24, 32)[port & 3]))
    return rules, local


def _programs() -> list[bytes]:
    heads = [
        bytes([number % 8, number % 6, number % 5, number * 17 % 256, number * 33 % 256, number % 6] * 3)
        for number in range(12)
    ]
    return [bytes([len(head)]) + head + made for head, made in zip(heads * 8, _packets(), strict=False)]


@target(seeds=_programs, limit=300)
def fuzz_filter_program(data: bytes) -> None:
    """Rules and a packet, in one input."""
    size = data[0] % 40 if data else 0
    rules, local = _rules(data[1 : 1 + size])
    made = data[1 + size :]
    program, twin = Filter(rules, local), filter_twin.Filter(rules, local)
    flows, twin_flows = FlowTable(seed=1), flow_twin.FlowTable()
    for _ in range(2):
        assert program.check_in(made, flows) == twin.check_in(made, twin_flows)
        assert program.check_out(made, flows) == twin.check_out(made, twin_flows)


def _conversations() -> list[bytes]:
    return [
        b"".join(bytes([len(packet) + 1, pause]) + packet for packet in packets if len(packet) < 255)
        for packets in viapackets.conversations()
        for pause in (0, 90)
    ]


@target(seeds=_conversations, limit=1400)
def fuzz_via(data: bytes) -> None:
    """Packets of a peer and of a host in turn, each behind a byte for the length and one for the pause before it."""
    fast, slow, now = viapackets.translator(), viapackets.reference(), 0.0
    for step in _cut(data):
        found = packet_twin.parse(step[1:])
        now += max(step[0] - 60, 0)
        if not isinstance(found, str):
            check = viapackets.check_in if found.version == 6 else viapackets.check_out
            check(fast, slow, step[1:], now=now)


_NAMES = [b"Node", b"Peers", b"NodeID", b"IP", b"x" * 64]
_TABLE, _TWIN = NameTable(_NAMES), jsonnames_twin.NameTable(_NAMES)


@target(
    seeds=lambda: [
        b'{"Node":{"nodeid":1,"Peers":[{"ip":"a"}]},"x":"\\"Node\\":"}',
        b'{"IP" : null , "peers"\n:[[[[]]]]}',
        b"[" * 70 + b'"ip":',
        b'{"%s":1}' % (b"X" * 64),
    ],
    text=True,
)
def fuzz_json_names(data: bytes) -> None:
    assert _TABLE.inspect(data) == _TWIN.inspect(data)


@target(
    seeds=lambda: [
        *(
            b"100.64.0.1/32",
            b"fd7a::1/128",
            b"1.2.3.4:5",
            b"[::1]:65535",
            b"[::ffff:1.2.3.4]:0",
            b"nodekey:" + b"ab" * 32,
        ),
        *(b"2024-02-29T00:00:00Z", b"::ffff:1.2.3.4", b"1::", b"::1.2.3.4", b"0.0.0.0", b"1:2:3:4:5:6:7:8"),
    ],
    limit=90,
    dictionary=(b":", b"::", b".", b"/", b"[", b"]", b"0", b"00", b"%", b"Z", b"T", b"-", b"ffff"),
)
def fuzz_address_text(data: bytes) -> None:
    """What the quick way takes means the same on the long way."""
    text = data.decode("utf-8", "replace")
    host = addresstext.host_of(text)
    if host is not None:
        interface = ip_interface(text)
        assert (interface.ip, interface.network.prefixlen) == (host, host.max_prefixlen)
    endpoint = addresstext.endpoint_of(text)
    if endpoint is not None:
        name, _, port = text.rpartition(":")
        address = ip_address(name.strip("[]"))
        assert (getattr(address, "ipv4_mapped", None) or address, int(port)) == endpoint
    key = addresstext.key_of(text, "nodekey")
    assert key is None or "nodekey:" + key.hex() == text.lower()
    addresstext.utc_of(text)
    with contextlib.suppress(ValueError):
        packed = ipprefix.parse_address(text)
        assert ip_address(text).packed == packed
        assert ip_address(ipprefix.format_address(packed)).packed == packed
