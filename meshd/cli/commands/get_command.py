"""`mesh get`."""

from __future__ import annotations

import sys

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable
from meshd.cli.prefsflags import exit_node_address, flag_argument, flag_value


def _run(client: LocalClient, flags: Parsed) -> None:
    from meshd.cli.commands.set_command import COMMAND as SET

    if len(flags.args) > 1:
        words = " ".join('"' + arg + '"' for arg in flags.args)
        raise CliError(f"too many arguments: [{words}]")
    prefs = client.prefs()
    status = client.status() if prefs.get("ExitNodeID") else {}
    exit_node = exit_node_address(prefs, status)
    settings: dict[str, bool | str] = {}
    for name in sorted(flag.name for flag in SET.flags):
        value = flag_value(name, prefs, exit_node)
        if value is not None:
            settings[name] = value
    wanted = flags.args[0] if flags.args else "all"
    if wanted != "all":
        if wanted not in settings:
            raise CliError(f'unknown setting "{wanted}"; see "mesh set --help" for valid settings')
        settings = {wanted: settings[wanted]}
    _print(settings, flags, single=wanted != "all")


def _print(settings: dict[str, bool | str], flags: Parsed, *, single: bool) -> None:
    if flags.on("json"):
        out_json(settings, 2)
    elif flags.on("set-flags"):
        out(" ".join(flag_argument(name, value) for name, value in settings.items()))
    elif single:
        out(_word(next(iter(settings.values()))))
    else:
        rows = [["NAME", "VALUE"], *([name, _word(value)] for name, value in settings.items())]
        sys.stdout.write(columns(rows))


def _word(value: bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else printable(value)


COMMAND = Command(
    "get",
    usage="mesh get [setting]",
    short="Show the current settings",
    long='Shows one setting, or all of them. The names are those of the flags of "mesh set".',
    flags=[
        Flag("json", BOOL, False, "print JSON"),
        Flag("set-flags", BOOL, False, 'print the flags that "mesh set" would need'),
    ],
    run=_run,
)
