"""`mesh login`."""

from __future__ import annotations

from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.commands.up_command import LOGIN_FLAGS, bring_up
from meshd.cli.flags import STRING, Flag, Parsed
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    before = client.json("GET", "profiles/current")
    client.call("PUT", "profiles/")
    try:
        bring_up(client, flags, _FLAGS, command="login")
    except BaseException:
        if isinstance(before, dict) and before.get("ID"):
            client.call("POST", f"profiles/{quote(str(before['ID']), safe='')}")
        raise


_FLAGS = [*LOGIN_FLAGS, Flag("nickname", STRING, "", "name for the login profile")]

COMMAND = Command(
    "login",
    usage="mesh login [flags]",
    short="Log in to a network",
    long="Makes a new login profile and brings it up. If that fails, the profile used before is used again.",
    flags=_FLAGS,
    run=_run,
)
