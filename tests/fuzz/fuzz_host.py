"""Fuzz targets of what the kernel and local programs tell us, and of the resolver configuration of the host.

They are no enemies; but one strange message must not end the daemon, and containers do strange things.
"""

from __future__ import annotations

import contextlib
import struct

from meshd.base.errors import WireError
from meshd.wire import netlink, nfevents, resolvconf
from tests.fuzz.target import target

_refused = contextlib.suppress(WireError)
_DECODERS = (
    netlink.decode_link,
    netlink.decode_tun_queues,
    netlink.decode_address,
    netlink.decode_route,
    netlink.decode_rule,
    netlink.error_number,
)


def _message(kind: int, body: bytes, sequence: int = 7) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _kernel_messages() -> list[bytes]:
    u32 = struct.Struct("=I").pack
    link = struct.pack("=BxHiII", 0, 1, 3, 0x1043, 0) + _attribute(3, b"mesh0\0") + _attribute(4, u32(1280))
    address = struct.pack("=BBBBi", 2, 24, 0, 0, 3) + _attribute(1, bytes([10, 0, 0, 1])) + _attribute(2, bytes(4))
    address6 = struct.pack("=BBBBi", 10, 64, 0, 0, 3) + _attribute(1, bytes(16))
    route = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 4, 0, 1, 0) + _attribute(1, bytes(4)) + _attribute(4, u32(3))
    rule = (
        struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 52, 0, 0, 1, 0) + _attribute(6, u32(5270)) + _attribute(10, u32(0x80000))
    )
    failure = struct.pack("=i", -17) + bytes(16)
    chain = bytes(4) + _attribute(1, b"filter\0") + _attribute(3, b"INPUT\0") + _attribute(4, b"hook")
    pairs = [(16, link), (20, address), (20, address6), (24, route), (32, rule), (2, failure), (3, b"")]
    pairs += [(10 << 8 | kind, b"\2" + chain[1:]) for kind in (2, 3, 5, 8)]
    single = [_message(kind, body) for kind, body in pairs]
    return [*single, b"".join(single), *(body for _, body in pairs)]


@target(seeds=_kernel_messages)
def fuzz_netlink(data: bytes) -> None:
    """Every decoder on every message, whatever its type says."""
    with _refused:
        for message in netlink.messages(data):
            for decode in _DECODERS:
                with _refused:
                    decode(message)
    whole = netlink.Message(16, 1, data)
    for decode in _DECODERS:
        with _refused:
            decode(whole)


@target(seeds=_kernel_messages)
def fuzz_ruleset_events(data: bytes) -> None:
    with _refused:
        for event in nfevents.events(data):
            assert event.family


_CONFIGURATION = (
    b"# by hand\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a.example b.example.\noptions ndots:5\n"
)


def _resolver_files() -> list[bytes]:
    originals = [
        resolvconf.Original(resolvconf.FILE, _CONFIGURATION, 0o644, 0, 0, 1 << 60),
        resolvconf.Original(resolvconf.LINK, b"", 0o777, 1, 2, 3, b"../run/a b"),
    ]
    ours = [resolvconf.encode_resolv_conf(["100.100.100.100"], ["a.b"], ["options x"], kept) for kept in originals]
    return [
        _CONFIGURATION,
        b"domain x\r\nnameserver\t::1 # local\n;nameserver 1\nsortlist 1.2.3.4/255.0.0.0",
        *ours,
    ]


@target(seeds=_resolver_files, dictionary=(b"nameserver ", b"search ", b"options ", b"\n", b"#", b"\x0c", b"%0a"))
def fuzz_resolv_conf(data: bytes) -> None:
    """What is read can be written; an original that is kept within a file comes out of it as it was."""
    found = resolvconf.decode_resolv_conf(data)
    resolvconf.encode_resolv_conf(found.nameservers, found.search, found.options)
    original = resolvconf.Original(resolvconf.FILE, data, 0o644, 5, 6, 7)
    ours = resolvconf.encode_resolv_conf(["::1"], ["a"], (), original)
    assert resolvconf.is_ours(ours)
    assert resolvconf.kept_original(ours) == original
    with _refused:
        resolvconf.kept_original(data)
