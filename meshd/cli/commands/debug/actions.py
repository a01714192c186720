"""Subcommands that make meshd do something."""

from __future__ import annotations

import sys
import time
from urllib.parse import urlencode

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError, Exit
from meshd.cli.flags import BOOL, DURATION, Flag, Parsed
from meshd.cli.output import out, printable
from meshd.cli.state import no_arguments


def _action(name: str, short: str, action: str = "") -> Command:
    """A command that is one action of the debug route."""

    def run(client: LocalClient, flags: Parsed) -> None:
        if flags.args:
            raise CliError("unexpected arguments")
        client.call("POST", f"debug?action={action or name}")

    return Command(name, usage=f"mesh debug {name}", short=short, run=run)


RESTUN = _action("restun", "Look for the addresses of this node again")
REBIND = _action("rebind", "Open the sockets of this node again")
ROTATE_DISCO_KEY = _action("rotate-disco-key", "Take a new discovery key")
DERP_SET_ON_DEMAND = _action("derp-set-on-demand", "Keep no connection to a home relay", "derp-set-homeless")
DERP_UNSET_ON_DEMAND = _action("derp-unset-on-demand", "Keep one again", "derp-unset-homeless")
BREAK_TCP_CONNS = _action("break-tcp-conns", "Break the TCP connections of meshd")
BREAK_DERP_CONNS = _action("break-derp-conns", "Break the connections to relays")
PICK_NEW_DERP = _action("pick-new-derp", "Use another home relay for a while")
FORCE_NETMAP_UPDATE = _action("force-netmap-update", "Apply the network map again")
CLEAR_NETMAP_CACHE = _action("clear-netmap-cache", "Forget the network maps kept on disk")


def _force_prefer_derp(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1 or not flags.args[0].isascii() or not flags.args[0].isdigit():
        raise CliError("expected exactly one integer argument")
    client.call("POST", "debug?action=force-prefer-derp", str(int(flags.args[0])).encode())


FORCE_PREFER_DERP = Command(
    "force-prefer-derp",
    usage="mesh debug force-prefer-derp <region>",
    short="Prefer a relay region where it can be reached",
    long="Until meshd is started again, or until the region is 0.",
    run=_force_prefer_derp,
)


def _reload_config(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    answer = client.json("POST", "reload-config")
    if answer.get("Err"):
        raise CliError(printable(answer["Err"]))
    if not answer.get("Reloaded"):
        out("config mode not in use")
        raise Exit(1)
    out("config reloaded")


RELOAD_CONFIG = Command(
    "reload-config", usage="mesh debug reload-config", short="Read the configuration file again", run=_reload_config
)


def _set_expire(client: LocalClient, flags: Parsed) -> None:
    if flags.args or not flags.seconds("in"):
        raise CliError("usage: mesh debug set-expire --in=<duration>")
    client.call("POST", f"set-expiry-sooner?expiry={int(time.time() + flags.seconds('in'))}")


SET_EXPIRE = Command(
    "set-expire",
    usage="mesh debug set-expire --in=1m",
    short="Let the node key expire soon",
    flags=[Flag("in", DURATION, 0.0, "how soon")],
    run=_set_expire,
)


def _dev_store_set(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 2:
        raise CliError("usage: mesh debug dev-store-set --danger <key> <value>")
    if not flags.on("danger"):
        raise CliError("this command is dangerous; use --danger to proceed")
    key, value = flags.args
    if value == "-":
        value = sys.stdin.read()
    client.call("POST", "dev-set-state-store?" + urlencode({"key": key, "value": value}))


DEV_STORE_SET = Command(
    "dev-store-set",
    usage="mesh debug dev-store-set --danger <key> <value>",
    short="Write an entry of the state",
    long='The value "-" is read from stdin.',
    flags=[Flag("danger", BOOL, False, "yes, it can make this node unusable")],
    run=_dev_store_set,
)
