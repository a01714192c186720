"""`mesh update`."""

from __future__ import annotations

from meshd.base.version import VERSION
from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    if flags.text("version") and flags.text("track"):
        raise CliError("cannot specify both --version and --track")
    # No release feed exists that could be asked: packages are updated by what installed them.
    raise CliError(
        f"The 'update' command is not supported on this platform (meshd {VERSION})\n"
        "meshd does not replace itself: update it with the package manager that installed it."
    )


COMMAND = Command(
    "update",
    usage="mesh update",
    short="Update meshd",
    flags=[
        Flag("dry-run", BOOL, False, "say what would be done"),
        Flag("track", STRING, "", "kind of releases to look at"),
        Flag("version", STRING, "", "version to install"),
        Flag("yes", BOOL, False, "do not ask"),
    ],
    run=_run,
)
