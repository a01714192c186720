"""What a fuzz target is: a function that takes any bytes, and where a campaign starts from.

A target returns for every input. It suppresses the one error that its parser may raise; any other exception, and any
assertion of its own, is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[1] / "vectors"
KEPT = Path(__file__).parent / "corpus"

Run = Callable[[bytes], None]
Seeds = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """``text``: inputs are made of tokens. ``limit``: bytes of the longest input that is made."""

    name: str
    run: Run
    seeds: Seeds
    text: bool
    limit: int
    dictionary: tuple[bytes, ...]

    def known(self) -> tuple[list[bytes], list[bytes]]:
        """What to start from: inputs made for this target and those that earlier campaigns kept; and all others."""
        seeds = [b"", *self.seeds()]
        return ([*kept(self.name)], seeds) if self.seeds is recorded else ([*seeds, *kept(self.name)], [])


TARGETS: dict[str, Target] = {}


def kept(name: str) -> Iterator[bytes]:
    """Inputs in the repository that earlier campaigns found worth keeping, each a line of hexadecimal digits."""
    path = KEPT / f"{name}.hex"
    if path.exists():
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                yield bytes.fromhex(line)


def vector(name: str) -> Any:
    """A file of recorded bytes."""
    return json.loads((VECTORS / f"{name}.json").read_text())


def byte_strings(value: Any) -> list[bytes]:
    """Everything in a vector that is written in hexadecimal digits."""
    if isinstance(value, dict):
        return [raw for item in value.values() for raw in byte_strings(item)]
    if isinstance(value, list):
        return [raw for item in value for raw in byte_strings(item)]
    if isinstance(value, str) and len(value) >= 2:
        try:
            return [bytes.fromhex(value)]
        except ValueError:
            return []
    return []


def recorded() -> list[bytes]:
    """Messages of all wire protocols, whole and without the header that some have."""
    files = ("noise_ik", "frames", "wireguard", "disco", "derp", "stun", "misc", "tka")
    raw = [data for name in files for data in byte_strings(vector(name)) if len(data) >= 2]
    return raw + [data[skip:] for data in raw for skip in (2, 5)]


def target(
    *, seeds: Seeds = recorded, text: bool = False, limit: int = 600, dictionary: tuple[bytes, ...] = ()
) -> Callable[[Run], Run]:
    """Makes a function ``fuzz_x`` the target ``x``."""

    def register(run: Run) -> Run:
        name = run.__name__.removeprefix("fuzz_")
        assert name not in TARGETS, name
        TARGETS[name] = Target(name, run, seeds, text, limit, dictionary)
        return run

    return register
