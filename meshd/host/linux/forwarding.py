"""Whether this host forwards packets for others, and whether its reverse path check lets exit nodes work."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

from meshd.base.addr import IPAddress, IPPrefix
from meshd.base.ranges import is_via

_LINK = "\nSee https://tailscale.com/s/ip-forwarding"
_V4, _V6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
_UNKNOWN = "Couldn't check system's IP forwarding configuration, subnet routing/exit nodes may not work: "
STRICT = "1"


def needed_versions(routes: Iterable[IPPrefix], own: Collection[IPAddress]) -> set[int]:
    """The IP versions that must be forwarded. The host's own addresses are reached without; via routes are IPv4."""
    return {
        4 if is_via(route) else route.version
        for route in routes
        if route.prefixlen < route.max_prefixlen or route.network_address not in own
    }


def forwarding_problem(routes: Iterable[IPPrefix], own: Collection[IPAddress], root: Path = Path("/")) -> str:
    """What keeps this host from forwarding for ``routes`` that it advertises; "" for nothing (RT-10)."""
    needed = needed_versions(routes, own)
    if not needed:
        return ""
    try:
        v4, v6 = _on(root, _V4), _on(root, _V6, missing=6 not in needed)
        if v4 and v6:
            return ""
        if 4 not in needed:
            return "" if v6 else f"IPv6 forwarding is disabled, subnet routing/exit nodes may not work.{_LINK}"
        folder = root / "proc/sys/net/ipv4/conf"
        found = _of_interfaces(folder, "forwarding")
    except OSError as error:
        return f"{_UNKNOWN}{error.strerror} ({error.filename}){_LINK}"
    states = {name: value != "0" for name, value in found.items()}
    if not any(states.values()):
        return f"IP forwarding is disabled, subnet routing/exit nodes will not work.{_LINK}"
    lines = ["IPv6 forwarding is disabled."] if 6 in needed and not v6 else []
    lines += [
        f"Traffic received on {name} won't be forwarded (net.ipv4.conf.{name}.forwarding disabled)"
        for name, on in states.items()
        if not on
    ]
    return "\n".join([*lines, f"Subnet routes and exit nodes may not work correctly.{_LINK}"]) if lines else ""


def strict_interfaces(root: Path = Path("/"), *, besides: str = "") -> list[str]:
    """Interfaces whose packets must come from where answers to them would go (RFC 3704 2.2). The kernel takes the
    larger of the interface's own value and the one for all."""
    folder = root / "proc/sys/net/ipv4/conf"
    try:
        general = (folder / "all/rp_filter").read_text().strip()
        found = _of_interfaces(folder, "rp_filter")
    except OSError:  # no such check on this kernel
        return []
    return [name for name, value in found.items() if name != besides and max(general, value) == STRICT]


def reverse_path_problem(interfaces: Collection[str]) -> str:
    """EX-09: what to say of interfaces with a strict check while an exit node is in use; "" for none."""
    if not interfaces:
        return ""
    issues = " ".join(f'interface "{name}" has strict reverse-path filtering enabled' for name in interfaces)
    return (
        "Exit node misconfiguration: The following issues on your machine will likely make usage of exit nodes "
        f"impossible: [{issues}], please set rp_filter=2 instead of rp_filter=1; "
        "see https://github.com/tailscale/tailscale/issues/3310"
    )


def _of_interfaces(folder: Path, setting: str) -> dict[str, str]:
    """A setting of each interface. Those of containers go at any moment, between two looks of ours too."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if entry.name not in ("all", "default", "lo"):
            with contextlib.suppress(FileNotFoundError):
                found[entry.name] = (entry / setting).read_text().strip()
    return found


def _on(root: Path, path: str, *, missing: bool = False) -> bool:
    """Whether a setting is not 0; ``missing`` where the kernel has no such setting."""
    try:
        return (root / "proc/sys" / path).read_text().strip() != "0"
    except FileNotFoundError:
        if missing:
            return True
        raise
