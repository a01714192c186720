"""Which batching of packets may be left to the kernel: by the environment, and by known faults of kernels."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import msgspec

from meshd.base.errors import MeshdError

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("", "0", "f", "F", "false", "FALSE", "False"))
_VARIABLES = {
    "TS_TUN_DISABLE_TCP_GRO": "tun_tcp_gro",
    "TS_TUN_DISABLE_UDP_GRO": "tun_udp_gro",
    "TS_DEBUG_DISABLE_UDP_GRO": "udp_gro",
    "TS_DEBUG_DISABLE_UDP_GSO": "udp_gso",
}
_ATTRIBUTES = {
    "disable-udp-gro": "udp_gro",
    "disable-udp-gso": "udp_gso",
    "disable-tun-udp-gro": "tun_udp_gro",
    "disable-tun-tcp-gro": "tun_tcp_gro",
    "never-gso-equal-tail": "equal_tail",
}


class Offload(msgspec.Struct, frozen=True):
    """The arguments of ``Plane.set_offload``."""

    udp_gso: bool = True
    udp_gro: bool = True
    equal_tail: bool = True
    tun_tcp_gro: bool = True
    tun_udp_gro: bool = True

    def arguments(self) -> dict[str, bool]:
        return msgspec.structs.asdict(self)


class OffloadChoice(msgspec.Struct, frozen=True):
    offload: Offload
    reasons: tuple[str, ...]
    """What is off and why, for the log; empty when all is on."""


def kernel_version(release: str) -> tuple[int, int, int] | None:
    """The first numbers of a release such as ``6.1.0-18-amd64``; None when it does not start with two of them."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", release, re.ASCII)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def corrupts_equal_segments(release: str) -> bool:
    """Linux 7.0 to 7.1.4 damages a segmented UDP send whose segments all have one size."""
    version = kernel_version(release)
    return version is not None and (7, 0, 0) <= version <= (7, 1, 4)


def lacks_udp_gro(release: str) -> bool:
    """Before Linux 5.12, merged datagrams could reach sockets that had not asked for them."""
    version = kernel_version(release)
    return version is not None and version < (5, 12, 0)


def choose_offload(
    environment: Mapping[str, str], release: str, attributes: Container[str] = frozenset()
) -> OffloadChoice:
    """``release`` is the kernel's, of Linux; ``attributes`` are those that the network gave this node.

    Raises MeshdError "usage" for a variable that is no boolean.
    """
    off: dict[str, bool] = {}
    reasons = []
    for variable, name in _VARIABLES.items():
        value = environment.get(variable, "")
        if value in _TRUE:
            off[name] = False
            reasons.append(f"{name}: {variable}")
        elif value not in _FALSE:
            raise MeshdError(
                f"{variable}={value}: expected a boolean",
                code="usage",
                hint=f"Set {variable} to true or false, or unset it.",
            )
    for attribute, name in _ATTRIBUTES.items():
        if attribute in attributes and name not in off:
            off[name] = False
            reasons.append(f"{name}: attribute {attribute}")
    for name, faulty in (("equal_tail", corrupts_equal_segments(release)), ("udp_gro", lacks_udp_gro(release))):
        if faulty and name not in off:
            off[name] = False
            reasons.append(f"{name}: kernel {release}")
    return OffloadChoice(Offload(**off), tuple(reasons))
