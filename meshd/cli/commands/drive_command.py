"""`mesh drive`."""

from __future__ import annotations

import os

from meshd.cli.client import LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.errors import CliError
from meshd.cli.flags import Parsed
from meshd.cli.output import out, printable

_SHARE = "mesh drive share <name> <path>"
_RENAME = "mesh drive rename <oldname> <newname>"
_UNSHARE = "mesh drive unshare <name>"
_LIST = "mesh drive list"

_ROUTE = "drive/shares"


def _words(flags: Parsed, count: int, usage: str) -> list[str]:
    if len(flags.args) != count:
        raise CliError(f"usage: {usage}")
    return flags.args


def _share(client: LocalClient, flags: Parsed) -> None:
    name, path = _words(flags, 2, _SHARE)
    client.call("PUT", _ROUTE, {"name": name, "path": os.path.abspath(path)})
    out(f'Sharing "{printable(path)}" as "{printable(name)}"')


def _rename(client: LocalClient, flags: Parsed) -> None:
    import json

    old, new = _words(flags, 2, _RENAME)
    client.call("POST", _ROUTE, json.dumps([old, new]).encode())
    out(f'Renamed share "{printable(old)}" to "{printable(new)}"')


def _unshare(client: LocalClient, flags: Parsed) -> None:
    (name,) = _words(flags, 1, _UNSHARE)
    client.call("DELETE", _ROUTE, name.encode())
    out(f'No longer sharing "{printable(name)}"')


def _list(client: LocalClient, flags: Parsed) -> None:
    _words(flags, 0, _LIST)
    shares = client.json("GET", _ROUTE) or []
    rows = [[printable(share.get(field) or "") for field in ("name", "path", "who")] for share in shares]
    header = ["name", "path", "as"]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(3)]
    for row in [header, ["-" * width for width in widths], *rows]:
        out(f"{row[0]:<{widths[0]}}    {row[1]:<{widths[1]}}    {row[2]}")


SHARE = Command("share", usage=_SHARE, short="Create or change a share", run=_share)
RENAME = Command("rename", usage=_RENAME, short="Rename a share", run=_rename)
UNSHARE = Command("unshare", usage=_UNSHARE, short="Remove a share", run=_unshare)
LIST = Command("list", usage=_LIST, short="List the shares", run=_list)

COMMAND = Command(
    "drive",
    usage="\n".join((_SHARE, _RENAME, _UNSHARE, _LIST)),
    short="Share directories with the mesh",
    long="""\
A share is a directory of this machine that other nodes reach by WebDAV under a name. The policy of
the network must give this node the attribute "drive:share", and "drive:access" to those who use it.""",
    parts=[
        Part("share", SHARE.short, "drive_command", "SHARE"),
        Part("rename", RENAME.short, "drive_command", "RENAME"),
        Part("unshare", UNSHARE.short, "drive_command", "UNSHARE"),
        Part("list", LIST.short, "drive_command", "LIST"),
    ],
)
