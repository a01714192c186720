"""Features of network interfaces, as ethtool(8) shows and sets them (SIOCETHTOOL, linux/ethtool.h)."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Self

from meshd.base.errors import MeshdError

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_STRINGS_OF_FEATURES = 4
_NAME_BYTES = 32
_MAX_FEATURES = 1024

RECEIVE_WANTED = "rx-udp-gro-forwarding"
RECEIVE_UNWANTED = "rx-gro-list"
SEND_NEEDED = "tx-udp-segmentation"


class Ethtool:
    """Asks and tells the kernel; close it. Everything raises OSError for an interface that is not there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def features(self, interface: str) -> dict[str, bool]:
        """Feature name to whether it is on."""
        names = self._names(interface)
        blocks = (len(names) + 31) // 32
        data = bytearray(struct.pack("=II", _GFEATURES, blocks)) + bytearray(16 * blocks)
        self._call(interface, data)
        active = [struct.unpack_from("=I", data, 8 + 16 * block + 8)[0] for block in range(blocks)]
        return {name: bool(active[i // 32] >> i % 32 & 1) for i, name in enumerate(names) if name}

    def change(self, interface: str, wanted: dict[str, bool]) -> None:
        """Set some features. KeyError for one that the kernel does not know."""
        names = self._names(interface)
        blocks = (len(names) + 31) // 32
        data = bytearray(struct.pack("=II", _SFEATURES, blocks)) + bytearray(8 * blocks)
        places = {name: i for i, name in enumerate(names) if name}
        for name, on in wanted.items():
            at, bit = 8 + 8 * (places[name] // 32), 1 << places[name] % 32
            valid, requested = struct.unpack_from("=II", data, at)
            struct.pack_into("=II", data, at, valid | bit, requested | bit if on else requested)
        self._call(interface, data)

    def _names(self, interface: str) -> list[str]:
        info = bytearray(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _STRINGS_OF_FEATURES, 0))
        self._call(interface, info)
        mask, count = struct.unpack_from("=QI", info, 8)
        if not mask or not 0 < count <= _MAX_FEATURES:
            return []
        data = bytearray(struct.pack("=III", _GSTRINGS, _STRINGS_OF_FEATURES, count)) + bytearray(_NAME_BYTES * count)
        self._call(interface, data)
        raw = [bytes(data[12 + _NAME_BYTES * i : 12 + _NAME_BYTES * (i + 1)]) for i in range(count)]
        return [name.split(b"\0", 1)[0].decode("ascii", "replace") for name in raw]

    def _call(self, interface: str, data: bytearray) -> None:
        import ctypes  # only here: the kernel wants an address

        buffer = (ctypes.c_char * len(data)).from_buffer(data)
        request = struct.pack("16sP16x", interface.encode()[:15], ctypes.addressof(buffer))
        fcntl.ioctl(self._socket, _SIOCETHTOOL, request)


def default_route_interface(table: str = "/proc/net/route") -> str:
    """The interface of the IPv4 default route with the lowest metric, "" when there is none."""
    best: tuple[int, str] | None = None
    with open(table) as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            if len(fields) >= 8 and fields[1] == fields[7] == "00000000":
                metric = int(fields[6])
                if best is None or metric < best[0]:
                    best = (metric, fields[0])
    return best[1] if best else ""


def udp_gro_problem(tun: str) -> str:
    """Why UDP between the default route and the tunnel is forwarded slower than it could be; "" for nothing."""
    try:
        interface = default_route_interface()
        if not interface:
            return ""
        with Ethtool() as ethtool:
            if not ethtool.features(tun).get(SEND_NEEDED):
                return ""
            features = ethtool.features(interface)
    except OSError as error:
        return f"couldn't check system's UDP GRO forwarding configuration, {error.strerror}"
    if RECEIVE_WANTED not in features or (features[RECEIVE_WANTED] and not features.get(RECEIVE_UNWANTED)):
        return ""
    return (
        f"UDP GRO forwarding is suboptimally configured on {interface}, UDP forwarding throughput capability will "
        "increase with a configuration change.\nSee https://tailscale.com/s/ethtool-config-udp-gro"
    )


def enable_udp_gro(tun: str) -> None:
    """Set the default route's interface to forward UDP in batches. MeshdError says why that failed."""
    try:
        interface = default_route_interface()
        if not interface:
            raise MeshdError("there is no default route", code="internal")
        with Ethtool() as ethtool:
            if not ethtool.features(tun).get(SEND_NEEDED):
                raise MeshdError(f"UDP segmentation is disabled for {tun}", code="internal")
            ethtool.change(interface, {RECEIVE_WANTED: True, RECEIVE_UNWANTED: False})
    except OSError as error:
        raise MeshdError(f"error enabling UDP GRO forwarding: {error.strerror}", code="internal") from None
    except KeyError as error:
        raise MeshdError(f"this system has no feature {error.args[0]}", code="unsupported") from None
