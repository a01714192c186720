"""Whether a file that this process sees is its own host's, or lent by the machine to a network namespace in it."""

from __future__ import annotations

import os
from pathlib import Path

_PROC, _NAMED = Path("/proc"), Path("/run/netns")


def is_mount_point(path: str | Path, proc: Path = _PROC) -> bool:
    """Whether something is mounted at exactly this place (links resolved)."""
    wanted = os.path.realpath(path)
    try:
        lines = (proc / "self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(len(words := line.split()) > 4 and _unescaped(words[4]) == wanted for line in lines)


def is_foreign(path: str | Path, proc: Path = _PROC, named: Path = _NAMED) -> bool:
    """Whether this process runs in a network namespace of its own while ``path`` is still the machine's.

    ``ip netns exec NAME`` gives a namespace its own /etc/resolv.conf only where /etc/netns/NAME has one; whoever
    changed the other one would change it for the whole machine. A file that is not there, or a link to none, would be
    made in the machine's folder.
    """
    if not stands_apart(proc, named):
        return False
    try:
        if not os.path.exists(path):
            path = Path(path).parent
        machine = os.stat(proc / "1/root" / os.path.realpath(path).lstrip("/"))
        return os.path.samestat(machine, os.stat(path))
    except FileNotFoundError:
        return False
    except OSError:  # the first process is not ours to look at
        return not is_mount_point(path, proc)


def stands_apart(proc: Path = _PROC, named: Path = _NAMED) -> bool:
    """Whether this process runs in another network namespace than the first process of the machine or container."""
    try:
        return not os.path.samestat(os.stat(proc / "self/ns/net"), os.stat(proc / "1/ns/net"))
    except OSError:
        return _is_named(proc, named)


def _is_named(proc: Path, named: Path) -> bool:
    """Whether our network namespace is one that ip-netns(8) made."""
    try:
        own = os.stat(proc / "self/ns/net")
        return any(os.path.samestat(own, entry.stat()) for entry in os.scandir(named))
    except OSError:
        return False


def _unescaped(field: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(code, character)
    return field
