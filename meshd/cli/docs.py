"""The help of all commands as one JSON object, for those who make manuals of it."""

from __future__ import annotations

import json
from typing import Any

from meshd.cli.command import Command
from meshd.cli.output import json_text, out


def print_docs(root: Command) -> None:
    """Print name, description, flags and subcommands of every command that is not hidden."""
    out(json_text(json.dumps(_docs(root), separators=(",", ":"), ensure_ascii=False)))


def print_help(root: Command) -> None:
    """Print the help of every command that is not hidden, one after the other."""
    out(root.help())
    for part in root.parts:
        if not part.hidden:
            print_help(part.load())


def _docs(command: Command) -> dict[str, Any]:
    docs: dict[str, Any] = {"Name": command.name, "Desc": command.long or command.short}
    subcommands = [_docs(part.load()) for part in command.parts if not part.hidden]
    if subcommands:
        docs["Subcommands"] = subcommands
    flags = [{"Name": flag.name, "Desc": flag.help} for flag in command.flags if not flag.hidden]
    if flags:
        docs["Flags"] = sorted(flags, key=lambda flag: flag["Name"])
    return docs
