"""Subcommands about the log of meshd."""

from __future__ import annotations

import json
import sys
from urllib.parse import urlencode

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, DURATION, INT, Flag, Parsed, format_duration
from meshd.cli.output import out, printable
from meshd.cli.state import no_arguments


def _component_logs(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1:
        raise CliError("usage: mesh debug component-logs <component>")
    component, seconds = flags.args[0], flags.seconds("for")
    query = urlencode({"component": component, "secs": int(max(seconds, 0))})
    answer = client.json("POST", "component-debug-logging?" + query)
    if answer.get("Error"):
        raise CliError(printable(answer["Error"]))
    if seconds <= 0:
        out(f'Disabled debug logs for component "{printable(component)}"')
    else:
        out(f'Enabled debug logs for component "{printable(component)}" for {format_duration(seconds)}')


def _daemon_logs(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    stream = client.stream("GET", "logtap")
    try:
        for line in stream.lines():
            _print(line, flags)
        raise CliError("meshd has ended the stream")
    finally:
        stream.close()


def _print(line: bytes, flags: Parsed) -> None:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = {"text": line.decode("utf-8", "replace")}
    text = str(entry.get("text") or "").strip()
    if not text or (entry.get("v") or 0) > flags.number("verbose"):
        return
    when = str((entry.get("logtail") or {}).get("client_time") or "") if flags.on("time") else ""
    out(printable(f"{when} {text}" if when else text))
    sys.stdout.flush()


COMPONENT_LOGS = Command(
    "component-logs",
    usage="mesh debug component-logs <component>",
    short="Make a component say more in the log",
    flags=[Flag("for", DURATION, 3600.0, "for how long; 0s ends it")],
    run=_component_logs,
)

DAEMON_LOGS = Command(
    "daemon-logs",
    usage="mesh debug daemon-logs",
    short="Follow the log of meshd",
    flags=[
        Flag("time", BOOL, False, "print when it was said"),
        Flag("verbose", INT, 0, "how detailed"),
    ],
    run=_daemon_logs,
)
