"""`mesh login`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.commands.up_command import LOGIN_FLAGS, bring_up, time_limit
from meshd.cli.errors import AccessDenied, CliError
from meshd.cli.flags import STRING, Flag, Parsed
from meshd.cli.output import err
from meshd.cli.state import no_arguments

_BACK_S = 10.0
"""How long meshd may take to use the profile of before again."""


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    with time_limit(client, flags):
        before = client.json("GET", "profiles/current")
    with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
        begun = False
        try:
            with time_limit(client, flags):
                client.call("PUT", "profiles/")
            begun = True
            bring_up(client, flags, _FLAGS, command="login")
        except BaseException as ended:
            changed = begun or not isinstance(ended, AccessDenied)
            if changed and isinstance(before, dict) and before.get("ID"):
                _use_again(client, str(before["ID"]))
            raise


@contextmanager
def _interrupted_by(*numbers: signal.Signals) -> Iterator[None]:
    """Signals that would end this process at once are interrupts: a time limit, or a terminal that is gone, must not
    leave the node in a network that it never joined."""
    mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in mine:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _use_again(client: LocalClient, profile: str) -> None:
    """Switch back. What ended the login is told by who called; here only that this failed, too."""
    client.give(_BACK_S)
    try:
        client.call("POST", f"profiles/{quote(profile, safe='')}")
    except (CliError, OSError) as error:
        err(f"cannot switch back to the profile used before: {error or 'no answer'}\n")


_FLAGS = [*LOGIN_FLAGS, Flag("nickname", STRING, "", "name for the login profile")]

COMMAND = Command(
    "login",
    usage="mesh login [flags]",
    short="Log in to a network",
    long="Makes a new login profile and brings it up. If that fails, the profile used before is used again.",
    flags=_FLAGS,
    run=_run,
)
