"""What tells one computer from another, for administrators who want to know their machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshd.base.errors import MeshdError

JSON = dict[str, Any]
_SERIALS = ("product_serial", "board_serial", "chassis_serial")
_PLACEHOLDERS = frozenset(
    {"", "0", "none", "n/a", "default string", "to be filled by o.e.m.", "not specified", "system serial number"}
)
"""What manufacturers write who write no number."""
MAX_ADDRESSES = 256


def identity(*, addresses: bool, serial: str = "", root: Path = Path("/")) -> JSON:
    """Serial numbers (``serial`` is one that an administrator gave), and hardware addresses of real interfaces.

    Raises MeshdError when no number can be read.
    """
    if serial:
        return _answer([serial], root if addresses else None)
    found: list[str] = []
    refused: OSError | None = None
    for name in _SERIALS:
        try:
            serial = (root / "sys/class/dmi/id" / name).read_text("utf-8", "replace").strip()[:128]
        except FileNotFoundError:
            continue
        except OSError as error:
            refused = error
            continue
        if serial.lower() not in _PLACEHOLDERS and serial not in found:
            found.append(serial)
    if refused is not None and not found:
        raise MeshdError(f"cannot read the serial number of this machine: {refused.strerror}", code="host")
    return _answer(found, root if addresses else None)


def _answer(serials: list[str], root: Path | None) -> JSON:
    answer: JSON = {"SerialNumbers": serials or None}
    if root is not None:
        answer["IfaceHardwareAddrs"] = hardware_addresses(root) or None
    return answer


def hardware_addresses(root: Path = Path("/")) -> list[str]:
    """Of interfaces that are devices, sorted; tunnels, bridges and the like have no device."""
    found: set[str] = set()
    try:
        interfaces = sorted((root / "sys/class/net").iterdir())[:MAX_ADDRESSES]
    except OSError:
        return []
    for interface in interfaces:
        try:
            if (interface / "device").exists():
                found.add((interface / "address").read_text("ascii", "replace").strip())
        except OSError:
            continue  # it went away while we looked
    return sorted(found - {"", "00:00:00:00:00:00"})
