"""`mesh file cp`."""

from __future__ import annotations

import os
import stat
import sys
import time
from urllib.parse import quote

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, DURATION, STRING, Flag, Parsed
from meshd.cli.nodes import address_of, base_name, canonical_ip, node_with_ip
from meshd.cli.output import err, out, printable
from meshd.cli.progress import progress

_AVAILABLE, _OFFLINE = 1, 5
_OBSTACLES = {
    2: "no netmap available on this node",
    3: "this node is not connected to its network",
    4: "missing required Taildrop capability",
    6: "invalid or unrecognized peer",
    7: "target's OS does not support Taildrop",
    8: "target is not advertising a file sharing API",
    9: "peer is owned by a different user",
}
"""Why a peer takes no files, by the TaildropTarget of its status."""

_UNSNIFFED = 4 << 20
"""Bytes of stdin that are looked at to see whether it is text."""


def _run(client: LocalClient, flags: Parsed) -> None:
    if flags.on("targets"):
        _targets(client, flags)
        return
    if len(flags.args) < 2:
        raise CliError("usage: mesh file cp <files...> <target>:")
    *files, target = flags.args
    if len(files) > 1 and flags.text("name"):
        raise CliError("can't use --name= with multiple files")
    if len(files) > 1 and "-" in files:
        raise CliError("can't use '-' as STDIN file when providing filename arguments")
    peer_id = _peer(client, target)
    for path in files:
        _send(client, flags, peer_id, path, target)


def _peer(client: LocalClient, target: str) -> str:
    """The ID of the node behind `name:` or `address:`, if it can take files."""
    if not target.endswith(":"):
        raise CliError("final argument to 'mesh file cp' must end in colon")
    host = target[:-1]
    brackets = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if brackets else host
    literal = canonical_ip(host)
    if literal is not None and ":" in literal and not brackets:
        raise CliError(f"an IPv6 literal must be written as [{literal}]")
    if brackets and (literal is None or ":" not in literal):
        raise CliError("unexpected brackets around target")
    status = client.status()
    ip, own = address_of(client, status, host)
    peer = None if own else node_with_ip(status, ip)
    if peer is None:
        raise CliError(f"can't send to {printable(host)}: unknown target; not in your Tailnet")
    kind = peer.get("TaildropTarget") or 0
    if kind not in (_AVAILABLE, _OFFLINE):
        reason = _OBSTACLES.get(kind, "unknown or indeterminate reason")
        raise CliError(f"can't send to {printable(host)}: cannot send files: {reason}")
    return str(peer.get("ID") or "")


def _send(client: LocalClient, flags: Parsed, peer_id: str, path: str, target: str) -> None:
    name = flags.text("name") or os.path.basename(path)
    length: int | None = None
    early = b""
    try:
        if path == "-":
            file = sys.stdin.buffer
            if not flags.text("name"):
                early = file.read(_UNSNIFFED)
                name = "stdin" + (".txt" if _is_text(early) else "")
        else:
            file = open(path, "rb")  # noqa: SIM115  (closed below; stdin must not be)
            about = os.fstat(file.fileno())
            if stat.S_ISDIR(about.st_mode):
                raise CliError("directories not supported")
            length = about.st_size if stat.S_ISREG(about.st_mode) else None
    except IsADirectoryError:
        raise CliError("directories not supported") from None
    except OSError as error:
        raise CliError(f"cannot read {printable(path)}: {error.strerror}") from None
    if flags.on("verbose"):
        err(f'sending "{printable(name)}" to {printable(target)} ...\n')
    route = f"file-put/{quote(peer_id, safe='')}/{quote(name, safe='')}"
    try:
        with progress(f"sending {printable(name)}"):
            client.upload(route, _Input(early, file, length), length)  # type: ignore[arg-type]
    finally:
        if path != "-":
            file.close()
    if flags.on("verbose"):
        err(f'sent "{printable(name)}"\n')


class _Input:
    """A file after what has been read of it; never more than the length it had at the beginning."""

    def __init__(self, early: bytes, file: object, length: int | None) -> None:
        self._early = early
        self._file = file
        self._left = length

    def read(self, size: int) -> bytes:
        if self._early:
            piece, self._early = self._early[:size], self._early[size:]
            return piece
        wanted = size if self._left is None else min(size, self._left)
        piece = self._file.read(wanted) if wanted else b""  # type: ignore[attr-defined]
        if self._left is not None:
            if not piece and self._left:
                raise CliError("the file became shorter while it was sent")
            self._left -= len(piece)
        return bytes(piece)


def _is_text(data: bytes) -> bool:
    try:
        return len(data) < _UNSNIFFED and b"\0" not in data and data.decode() is not None
    except UnicodeDecodeError:
        return False


def _targets(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("invalid arguments with --targets")
    targets = client.json("GET", "file-targets") or []
    status = client.status(peers=False) if targets else {}
    for target in targets:
        node = target.get("Node") or {}
        address = str((node.get("Addresses") or [""])[0]).partition("/")[0]
        name = node.get("ComputedName") or base_name(status, {"DNSName": node.get("Name")})
        out(f"{address}\t{printable(name)}{_detail(node)}")


def _detail(node: JSON) -> str:
    """Whether the node can be reached now, where that is in doubt."""
    if node.get("Online"):
        return ""
    text = "offline" if node.get("Online") is False else "unknown-status"
    if node.get("LastSeen"):
        from meshd.base.gotime import parse_time
        from meshd.cli.flags import format_duration

        try:
            seen = parse_time(str(node["LastSeen"]))
        except ValueError:
            seen = None
        if seen is not None:
            text += f"; last seen {format_duration(max(round((time.time() - seen) / 60), 0) * 60)} ago"
    return "\t" + text


COMMAND = Command(
    "cp",
    usage="mesh file cp <files...> <target>:",
    short="Copy files to a node",
    flags=[
        Flag("name", STRING, "", 'name for the file at the other end, useful when <file> is "-" (stdin)'),
        Flag("targets", BOOL, False, "list the nodes that files can be sent to"),
        Flag("update-interval", DURATION, 0.25, "pause between two updates of the progress line, 0 for none"),
        Flag("verbose", BOOL, False, "say more"),
    ],
    run=_run,
)
