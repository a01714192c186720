"""`mesh switch`."""

from __future__ import annotations

import sys
import time
from urllib.parse import quote

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.completion import complete_profile
from meshd.cli.errors import CliError, Exit
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import columns, err, out, out_json, printable
from meshd.cli.state import describe

_PATIENCE_S = 10.0
_POLL_S = 0.1


def _run(client: LocalClient, flags: Parsed) -> None:
    if flags.on("list"):
        _list(client, as_json=flags.on("json"))
        return
    if flags.on("json"):
        out("--json argument cannot be used with mesh switch NAME")
        raise Exit(1)
    if len(flags.args) == 2 and flags.args[0] == "remove":
        _remove(client, flags.args[1])
        return
    if len(flags.args) != 1:
        out("usage: mesh switch NAME")
        raise Exit(1)
    _switch(client, flags.args[0])


def _profiles(client: LocalClient) -> tuple[JSON, list[JSON]]:
    return client.json("GET", "profiles/current"), client.json("GET", "profiles/")


def _tailnet(profile: JSON) -> str:
    network = profile.get("NetworkProfile") or {}
    return printable(network.get("DisplayName") or network.get("DomainName") or "")


def _account(profile: JSON) -> str:
    return printable((profile.get("UserProfile") or {}).get("LoginName") or "")


def _list(client: LocalClient, *, as_json: bool) -> None:
    current, profiles = _profiles(client)
    if as_json:
        out_json(
            [
                {
                    "id": p["ID"],
                    "nickname": p["Name"],
                    "tailnet": _tailnet(p),
                    "account": _account(p),
                    "selected": p["ID"] == current.get("ID"),
                }
                for p in profiles
            ],
            2,
        )
        return
    rows = [["ID", "Tailnet", "Account"]]
    for profile in profiles:
        mark = "*" if profile["ID"] == current.get("ID") else ""
        rows.append([profile["ID"], _tailnet(profile), printable(profile["Name"]) + mark])
    sys.stdout.write(columns(rows, minimum=2))


def _find(profiles: list[JSON], name: str) -> JSON:
    """By ID, then by network, then by name or account."""
    for fits in (
        lambda p: p["ID"] == name,
        lambda p: _tailnet(p) == name,
        lambda p: name in (p["Name"], _account(p)),
    ):
        for profile in profiles:
            if fits(profile):
                return profile
    err(f'No profile named "{printable(name)}"\n')
    raise Exit(1)


def _switch(client: LocalClient, name: str) -> None:
    current, profiles = _profiles(client)
    profile = _find(profiles, name)
    if profile["ID"] == current.get("ID"):
        out(f'Already on account "{printable(name)}"')
        return
    client.call("POST", "profiles/" + quote(profile["ID"], safe=""))
    out(f'Switching to account "{printable(name)}"')
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        status = client.status(peers=False)
        match status.get("BackendState"):
            case "Running":
                out("Success.")
                return
            case "NeedsLogin":
                out("Logged out.\nTo log in, run:\n  mesh up")
                return
            case "NoState" | "Starting":
                time.sleep(_POLL_S)
            case _:
                out(describe(status))
                raise Exit(1)
    raise CliError('Timed out waiting for switch to complete; see "mesh status"')


def _remove(client: LocalClient, name: str) -> None:
    _, profiles = _profiles(client)
    profile = _find(profiles, name)
    client.call("DELETE", "profiles/" + quote(profile["ID"], safe=""))


COMMAND = Command(
    "switch",
    usage="mesh switch <id>\nmesh switch --list [--json]\nmesh switch remove <id>",
    short="Switch to another login profile",
    long="A profile is named by its ID (see --list), its network, its account or its own name.",
    flags=[
        Flag("json", BOOL, False, "print the list as JSON"),
        Flag("list", BOOL, False, "list the profiles"),
    ],
    run=_run,
    complete=complete_profile,
)
