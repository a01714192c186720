"""`mesh up`, and what `mesh login` shares with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.commands.set_command import warn_if_not_forwarding
from meshd.cli.errors import CliError
from meshd.cli.filevalue import text_or_file
from meshd.cli.flags import BOOL, DURATION, STRING, TRUE_ONLY, Flag, Parsed
from meshd.cli.output import out, printable_lines
from meshd.cli.prefsflags import ACCEPT_RISK, DEFAULT_CONTROL_URL, is_login_server_synonym, pref_flags
from meshd.cli.progress import progress
from meshd.cli.qr import check_format
from meshd.cli.risk import confirm, connected_through_mesh
from meshd.cli.state import no_arguments
from meshd.cli.upprefs import (
    check_reverts,
    control_url_changed,
    edit_of,
    is_bare_up,
    keep_implicit_operator,
    prefs_from_flags,
)
from meshd.cli.upwait import ANSWER_S, UpWait

LOGIN_FLAGS = [
    *pref_flags(),
    Flag("advertise-tags", STRING, "", 'tags to ask for, separated by commas (such as "tag:eng,tag:ssh")'),
    Flag("audience", STRING, "", "audience of the token by which this workload proves what it is, with --client-id"),
    Flag("auth-key", STRING, "", 'key that authorizes this node; "file:PATH" reads it from a file'),
    Flag("client-id", STRING, "", "client that makes an auth key for the identity of this workload"),
    Flag("client-secret", STRING, "", 'OAuth secret that makes an auth key; "file:PATH" reads it from a file'),
    Flag("host-routes", TRUE_ONLY, True, "routes to other nodes are always installed", hidden=True),
    Flag("id-token", STRING, "", 'token that proves what this workload is; "file:PATH" reads it from a file'),
    Flag("login-server", STRING, DEFAULT_CONTROL_URL, "URL of the coordination server"),
    Flag("qr", BOOL, False, "show login URLs as QR codes too"),
    Flag("qr-format", STRING, "auto", "how QR codes are drawn: auto, ascii, large or small"),
    Flag("timeout", DURATION, 0.0, "how long to wait until meshd is running, 0s for ever"),
]
"""Flags of both commands."""

_UP_FLAGS = [
    *LOGIN_FLAGS,
    ACCEPT_RISK,
    Flag("force-reauth", BOOL, False, "log in again (this may cut the connection that you are using)"),
    Flag("json", BOOL, False, "print JSON"),
    Flag("reset", BOOL, False, "set what is not mentioned back to its default"),
]

_KEY_FLAGS = ("auth-key", "client-secret", "client-id")
"""Flags that ask for a login by key."""

_WORTH_TELLING = (
    "Tailscale SSH enabled, but ",
    "Some peers are advertising routes but --accept-routes is false",
    "this node is locked out",
    "issues on your machine will likely make usage of exit nodes impossible",
    "update available: ",
)
"""Health messages that concern somebody who has just changed settings contain one of these."""


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    bring_up(client, flags, _UP_FLAGS, command="up")


def bring_up(client: LocalClient, flags: Parsed, known: list[Flag], *, command: str) -> None:
    """Give the node the preferences of the flags and wait until it runs."""
    with time_limit(client, flags):
        _bring_up(client, flags, known, command=command)


@contextmanager
def time_limit(client: LocalClient, flags: Parsed) -> Iterator[None]:
    """Keep --timeout in all that is asked of the daemon. CliError when it does not answer."""
    _limit(client, flags)
    try:
        yield
    except TimeoutError:
        raise CliError("timeout waiting for an answer of meshd") from None
    finally:
        client.give(0)


def _limit(client: LocalClient, flags: Parsed) -> None:
    """Begin the time of --timeout anew: it ends what a daemon that hangs holds up, and a small one no other step."""
    timeout = flags.seconds("timeout")
    client.give(max(timeout, ANSWER_S) if timeout > 0 else 0)


def _bring_up(client: LocalClient, flags: Parsed, known: list[Flag], *, command: str) -> None:
    if flags.on("qr"):
        check_format(flags.text("qr-format"))
    status = client.status(peers=bool(flags.text("exit-node")))
    prefs = prefs_from_flags(flags, status)
    if prefs["AdvertiseRoutes"] or prefs["AppConnector"]["Advertise"]:
        warn_if_not_forwarding(client)
    current = client.prefs()
    simple = False
    reset, force = bool(flags.values.get("reset")), bool(flags.values.get("force-reauth"))
    if command == "up":
        prefs["ProfileName"] = current.get("ProfileName") or ""
        simple = not reset and is_bare_up(flags, current, status)
        if not reset and not simple:
            keep_implicit_operator(prefs, current, flags)
            known_nodes = client.status() if current.get("ExitNodeID") else status
            check_reverts(prefs, current, known_nodes, flags, known)
    elif "operator" not in flags.given:
        prefs["OperatorUser"] = current.get("OperatorUser") or ""  # who began this profile goes on with it
    running = status.get("BackendState") == "Running"
    if not simple and running and not force and control_url_changed(prefs, current):
        raise CliError("can't change --login-server without --force-reauth")
    if not simple:
        _confirm_risks(prefs, current, flags, force=force)
        _limit(client, flags)
    just_edit = command == "up" and running and not force and not any(flags.text(name) for name in _KEY_FLAGS)
    if just_edit and (simple or _same_tags(prefs, current)):
        client.edit_prefs(edit_of(prefs, flags, known, reset=reset))
    else:
        _start_and_wait(client, flags, status, current if simple else prefs, simple=simple, force=force)
    _tell_health(client)


def _confirm_risks(prefs: JSON, current: JSON, flags: Parsed, *, force: bool) -> None:
    if not connected_through_mesh():
        return
    accepted = str(flags.values.get("accept-risk", ""))
    if prefs["RunSSH"] != bool(current.get("RunSSH")):
        confirm("This changes who answers SSH over the mesh, and will end your session.", accepted)
    if force:
        confirm("This logs the node in again, and may end your SSH session over the mesh.", accepted)


def _same_tags(prefs: JSON, current: JSON) -> bool:
    return (prefs["AdvertiseTags"] or []) == (current.get("AdvertiseTags") or [])


def _start_and_wait(
    client: LocalClient, flags: Parsed, status: JSON, prefs: JSON, *, simple: bool, force: bool
) -> None:
    key = "" if simple else _auth_key(flags, prefs)
    _limit(client, flags)
    watcher = client.watch(0)  # before anything happens, so that nothing is missed
    try:
        if simple:
            edit = {"WantRunning": True, "WantRunningSet": True}
            if prefs.get("LoggedOut"):  # a logout is under way, and overtaken
                edit |= {"LoggedOut": False, "LoggedOutSet": True}
            client.edit_prefs(edit)
        else:
            client.check_prefs(prefs)
            client.call("POST", "start", {"AuthKey": key, "UpdatePrefs": prefs})
            if force or not status.get("HaveNodeKey"):
                client.call("POST", "login-interactive")
        wait = UpWait(
            client,
            status,
            prefs,
            has_auth_key=bool(key),
            new_key_wanted=force,
            as_json=bool(flags.values.get("json")),
            qr_format=flags.text("qr-format") if flags.on("qr") else "",
        )
        _limit(client, flags)
        wait.run(watcher, flags.seconds("timeout"))
    finally:
        watcher.close()
    _limit(client, flags)


def _auth_key(flags: Parsed, prefs: JSON) -> str:
    """The key of --auth-key, or one that a client makes on the spot; "" for a login by page."""
    key = text_or_file(flags.text("auth-key"), "the auth key")
    secret = key or text_or_file(flags.text("client-secret"), "the client secret")
    if not secret and not flags.text("client-id"):
        return ""
    from meshd.cli import oauthkey

    with progress("getting an auth key"):
        if secret:
            return oauthkey.key_for_secret(secret, prefs["AdvertiseTags"])
        token = text_or_file(flags.text("id-token"), "the ID token")
        server = DEFAULT_CONTROL_URL if is_login_server_synonym(prefs["ControlURL"]) else prefs["ControlURL"]
        return oauthkey.key_for_identity(
            flags.text("client-id"), token, flags.text("audience"), server, prefs["AdvertiseTags"]
        )


def _tell_health(client: LocalClient) -> None:
    health = client.status(peers=False).get("Health") or []
    lines = [printable_lines(line, "#       ") for line in health if any(mark in line for mark in _WORTH_TELLING)]
    if len(lines) == 1:
        out(lines[0])
    elif lines:
        out("# Health check warnings:")
        for line in lines:
            out(f"#     - {line}")


COMMAND = Command(
    "up",
    usage="mesh up [flags]",
    short="Connect to the mesh, logging in if needed",
    long="""\
Without flags this brings the node up with the settings it has: the opposite of "mesh down".

With flags, they are the whole set of settings: it is an error to leave out one that is not at
its default, unless --reset says that this is meant. (--auth-key, --force-reauth and --timeout
are not settings.) To change single settings use "mesh set".""",
    flags=_UP_FLAGS,
    run=_run,
)
