"""`mesh version`."""

from __future__ import annotations

from meshd.base.version import CAPABILITY_VERSION, VERSION, long_version
from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import out, out_json, printable
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    if flags.on("upstream") or flags.text("track"):
        raise CliError("nobody publishes which release of meshd is the latest: ask your package manager")
    daemon = str(client.status(peers=False).get("Version") or "") if flags.on("daemon") else ""
    if flags.on("json"):
        meta = {"majorMinorPatch": VERSION, "short": VERSION, "long": long_version()}
        out_json(meta | ({"daemonLong": daemon} if daemon else {}) | {"cap": CAPABILITY_VERSION})
        return
    import platform

    text = f"{VERSION}\n  long version: {long_version()}\n  python version: {platform.python_version()}"
    out(f"Client: {text}\nDaemon: {printable(daemon)}" if flags.on("daemon") else text)


COMMAND = Command(
    "version",
    usage="mesh version [flags]",
    short="Print the version",
    flags=[
        Flag("daemon", BOOL, False, "print the version of the running meshd too"),
        Flag("json", BOOL, False, "print JSON"),
        Flag("track", STRING, "", "which releases to look at", hidden=True),
        Flag("upstream", BOOL, False, "look for the latest release", hidden=True),
    ],
    run=_run,
)
