"""Memory of this process, and what the data plane takes for a peer that never says anything."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

from perf.scale import frames

SAMPLE = 10_000  # peers; fewer would measure the growth steps of tables


class _Mallinfo2(ctypes.Structure):
    """Of malloc.h; only ``hblkhd`` (mapped) and ``uordblks`` (in use) are read here."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = _Mallinfo2


def pss_bytes() -> int:
    """Proportional set size, after everything free was given back."""
    gc.collect()
    _libc.malloc_trim(0)
    found = re.search(r"^Pss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def malloc_bytes() -> int:
    """What malloc has handed out. Small Python objects are not in it, they come from arenas of their own."""
    info = _libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def plane_bytes_per_peer(start: int) -> dict[str, float]:
    """Growth per peer of a plane up to ``start`` peers, or by a sample from few; each has two addresses and a relay."""
    from meshd._fast.plane import Plane

    plane = Plane(tun_fds=[], udp4_fd=-1, udp6_fd=-1)
    start = max(start - SAMPLE, 1)
    _add(plane, 0, start)
    pss, heap = pss_bytes(), malloc_bytes()
    _add(plane, start, SAMPLE)
    return {
        "fast_bytes_per_peer": round((malloc_bytes() - heap) / SAMPLE),
        "plane_pss_bytes_per_peer": round((pss_bytes() - pss) / SAMPLE),
    }


def _add(plane: object, start: int, count: int) -> None:
    for number in range(start, start + count):
        index = plane.add_peer(bytes.fromhex(frames.key("", number)[1:]))  # type: ignore[attr-defined]
        value = 0x64400000 + number
        plane.add_route(index, value.to_bytes(4), 32)  # type: ignore[attr-defined]
        plane.add_route(index, bytes.fromhex("fd7a115ca1e0") + value.to_bytes(10), 128)  # type: ignore[attr-defined]
        plane.set_path(index, None, 0, 0.0, number % frames.REGIONS + 1)  # type: ignore[attr-defined]
