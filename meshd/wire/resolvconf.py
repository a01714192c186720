"""resolv.conf(5): what a file says, and the file that this program writes, which carries the original within it.

The original stands in comments, so that it can be put back byte for byte by a process that has nothing but the file:
in a pod, say, whose containers come and go while this file stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import WireError

MAX_BYTES = 1 << 16
"""More than this is no resolver configuration."""
FILE, LINK, NONE = "file", "link", "none"

_MARK, _KEPT = b"# meshd-original: ", b"#|"
_MARK_WITHIN = 4096  # bytes from the start
_HEAD = (
    b"# Written by meshd, which puts the original below back when it stops, or by `meshd --cleanup`.\n"
    b"# `mesh set --accept-dns=false` makes it leave this file alone.\n"
)


class ResolvConf(msgspec.Struct, frozen=True):
    """Name servers in order, and the domains that short names are tried in; ``options`` are whole lines."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Original(msgspec.Struct, frozen=True):
    """What stood at the place of the file: a ``file``, a ``link`` to ``target`` or ``none``, with its content."""

    kind: str = NONE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: bytes = b""


def decode_resolv_conf(data: bytes) -> ResolvConf:
    """What resolvers make of the file. Lines that mean nothing are passed over."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            address = words[1].partition("%")[0]
            try:
                parse_ip(address)
            except ValueError:
                continue
            servers.append(words[1])
        elif words[:1] in (["search"], ["domain"]):
            search = tuple(word.rstrip(".") for word in words[1:])
        elif words[:1] in (["options"], ["sortlist"]) and len(words) > 1:
            options.append(" ".join(words))
    return ResolvConf(tuple(servers), search, tuple(options))


def encode_resolv_conf(
    nameservers: Iterable[IPAddress | str],
    search: Sequence[str],
    options: Iterable[str] = (),
    original: Original | None = None,
) -> bytes:
    """A file for the resolvers of this host; with ``original`` within it when there is one to keep."""
    lines = [f"nameserver {server}" for server in nameservers]
    if search:
        lines.append("search " + " ".join(search))
    text = "\n".join([*lines, *options, ""]).encode()
    if original is None:
        return b"# Written by meshd.\n" + text
    kept = b"".join(_KEPT + line + b"\n" for line in original.data.split(b"\n"))
    return _HEAD + _MARK + _facts(original) + b"\n" + kept + text


def is_ours(data: bytes) -> bool:
    """Whether ``encode_resolv_conf`` made this file."""
    return (b"\n" + data[:_MARK_WITHIN]).find(b"\n" + _MARK) >= 0


def kept_original(data: bytes) -> Original | None:
    """The original within a file of ours; None when it holds none. WireError when what it holds was damaged."""
    lines = iter(data.split(b"\n"))
    for line in lines:
        if line.startswith(_MARK):
            found = _facts_of(line.removeprefix(_MARK))
            kept = []
            for following in lines:
                if not following.startswith(_KEPT):
                    break
                kept.append(following.removeprefix(_KEPT))
            if not kept:
                raise WireError("the original within the file is gone")
            return msgspec.structs.replace(found, data=b"\n".join(kept))
    return None


def _facts(original: Original) -> bytes:
    numbers = f"{original.mode:04o} {original.uid} {original.gid} {original.mtime_ns}"
    return f"{original.kind} {numbers} {quote_from_bytes(original.target)}".rstrip().encode()


def _facts_of(text: bytes) -> Original:
    words = text.decode("ascii", "replace").split()
    try:
        kind, mode, numbers = words[0], int(words[1], 8), [int(word) for word in words[2:5]]
        uid, gid, mtime_ns = numbers
    except (IndexError, ValueError):
        raise WireError("what the file says of its original is damaged") from None
    target = unquote_to_bytes(words[5]) if len(words) > 5 else b""
    sane = 0 <= mode <= 0o7777 and 0 <= uid < 1 << 32 and 0 <= gid < 1 << 32 and 0 <= mtime_ns < 1 << 63
    if kind not in (FILE, LINK, NONE) or not sane or (kind == LINK and (not target or b"\0" in target)):
        raise WireError("what the file says of its original is damaged")
    return Original(kind, b"", mode, uid, gid, mtime_ns, target)
