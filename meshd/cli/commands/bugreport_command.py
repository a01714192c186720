"""`mesh bugreport`."""

from __future__ import annotations

import sys
from urllib.parse import urlencode

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import out
from meshd.cli.progress import progress


def _run(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) > 1:
        raise CliError("unknown arguments")
    note = flags.args[0] if flags.args else ""
    _mark(client, note, diagnose=flags.on("diagnose"))
    if flags.on("record"):
        out("Recording started; please reproduce your issue and then press Enter...")
        sys.stdout.flush()
        sys.stdin.readline()
        _mark(client, note, diagnose=False)
        out("Please give both markers above to those who look into the issue.")


def _mark(client: LocalClient, note: str, *, diagnose: bool) -> None:
    query = {"note": note} | ({"diagnose": "true"} if diagnose else {})
    with progress("meshd looks at itself"):
        out(client.text("POST", "bugreport?" + urlencode(query)).strip())


COMMAND = Command(
    "bugreport",
    usage="mesh bugreport [note]",
    short="Print a marker to find this moment in the logs",
    long="The logs stay on this machine: give them along with the marker when you report a bug.",
    flags=[
        Flag("diagnose", BOOL, False, "let meshd look at itself more closely, and log what it finds"),
        Flag("record", BOOL, False, "print one marker now and a second one after Enter"),
    ],
    run=_run,
)
