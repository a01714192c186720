"""From what a machine calls itself to a DNS label that nobody else has (RFC 1035 2.3.1)."""

from __future__ import annotations

import re
from collections.abc import Container

from meshd.base.errors import MeshdError

MAX_LABEL = 63
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)
_BAD = re.compile(r"[^a-z0-9-]+", re.ASCII)


def label(hostname: str) -> str:
    """The nearest valid label: lower case, anything else a hyphen; `node` when nothing is left.

    A bad host name can therefore never make a map invalid.
    """
    first = hostname[:1024].strip().lower().partition(".")[0]
    return _BAD.sub("-", first).strip("-")[:MAX_LABEL].rstrip("-") or "node"


def unique_label(hostname: str, taken: Container[str]) -> str:
    """`label(hostname)`, with `-1`, `-2`, … when it is taken."""
    base = label(hostname)
    if base not in taken:
        return base
    number = 1
    while True:
        candidate = f"{_stem(base, str(number))}-{number}"
        if candidate not in taken:
            return candidate
        number += 1


def is_derived(name: str, hostname: str) -> bool:
    """Whether `unique_label(hostname)` can have given this name."""
    base = label(hostname)
    stem, _, number = name.rpartition("-")
    return name == base or (_NUMBER.fullmatch(number) is not None and stem == _stem(base, number))


def _stem(base: str, number: str) -> str:
    return base[: MAX_LABEL - len(number) - 1].rstrip("-")


def checked_label(name: str) -> str:
    """A label as an administrator typed it; MeshdError when it is not one."""
    if not _LABEL.fullmatch(name):
        raise MeshdError(
            f"{name!r} is not a valid machine name",
            code="usage",
            hint="Use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end.",
        )
    return name
