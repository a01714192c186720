"""`mesh web`: not part of this version of meshd, which it says."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    raise CliError("this build of meshd has no web interface; 'mesh status --web' shows the status in a browser")


COMMAND = Command(
    "web",
    usage="mesh web",
    short="Control meshd with a browser",
    flags=[
        Flag("cgi", BOOL, False, "run as a CGI program", hidden=True),
        Flag("listen", STRING, "localhost:8088", "address to listen on", hidden=True),
        Flag("origin", STRING, "", "where the interface is served", hidden=True),
        Flag("prefix", STRING, "", "path before all of its requests", hidden=True),
        Flag("readonly", BOOL, False, "show and change nothing", hidden=True),
    ],
    run=_run,
)
