"""`mesh syspolicy`."""

from __future__ import annotations

import sys
from typing import Any

from meshd.cli.client import LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable
from meshd.cli.state import no_arguments


def _list(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    _print(client.json("GET", "policy/"), as_json=flags.on("json"))


def _reload(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    _print(client.json("POST", "policy/"), as_json=flags.on("json"))


def _print(policy: Any, *, as_json: bool) -> None:
    if as_json:
        out_json(policy)
        return
    settings = (policy or {}).get("Settings") or {}
    if not settings:
        out("No policy settings")
        return
    rows = [["Name", "Origin", "Value", "Error"], ["----", "------", "-----", "-----"]]
    for name, setting in sorted(settings.items()):
        setting = setting if isinstance(setting, dict) else {"Value": setting}
        origin = setting.get("Origin")
        where = (origin.get("Name") or origin.get("Scope")) if isinstance(origin, dict) else origin
        cells = [name, where or "", setting.get("Value", ""), setting.get("Error") or ""]
        rows.append([printable(cell) for cell in cells])
    sys.stdout.write(columns(rows))
    out()


_JSON = Flag("json", BOOL, False, "print JSON")

LIST = Command("list", usage="mesh syspolicy list", short="Print the settings in force", flags=[_JSON], run=_list)

RELOAD = Command(
    "reload",
    usage="mesh syspolicy reload",
    short="Read the policy again and print the settings",
    flags=[_JSON],
    run=_reload,
)

COMMAND = Command(
    "syspolicy",
    usage="mesh syspolicy <subcommand>",
    short="Show the settings that a system policy enforces",
    parts=[
        Part("list", LIST.short, "syspolicy_command", "LIST"),
        Part("reload", RELOAD.short, "syspolicy_command", "RELOAD"),
    ],
)
