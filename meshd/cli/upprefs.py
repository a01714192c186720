"""What the flags of `up` and `login` ask for, and the check that nothing is reverted by accident."""

from __future__ import annotations

import os

from meshd.cli.client import JSON
from meshd.cli.errors import CliError
from meshd.cli.flags import Flag, Parsed
from meshd.cli.nodes import exit_node_choice
from meshd.cli.output import warn
from meshd.cli.prefsflags import (
    AUTO_EXIT_NODE,
    PREFS_OF_FLAG,
    advertised_routes,
    check_hostname,
    exit_node_address,
    flag_argument,
    flag_value,
    has_exit_routes,
    is_login_server_synonym,
    mark_changed,
    netfilter_mode,
    tags_of,
)

_SECRET_FLAGS = frozenset(("auth-key", "client-secret", "id-token"))

REVERT_PREFIX = (
    "Error: changing settings via 'mesh up' requires mentioning all\n"
    "non-default flags. To proceed, either re-run your command with --reset or\n"
    "use the command below to explicitly mention the current value of\n"
    "all non-default settings:\n\n\tmesh up"
)
"""Programs look for this text (with the other command's name in it)."""


def prefs_from_flags(flags: Parsed, status: JSON) -> JSON:
    """The preferences that the flags describe, unmentioned ones at their defaults.

    Raises:
        CliError: a value that no node could use.
    """
    exit_node = flags.text("exit-node")
    automatic = exit_node.startswith(AUTO_EXIT_NODE)
    if not exit_node and flags.on("exit-node-allow-lan-access"):
        raise CliError("--exit-node-allow-lan-access can only be used with --exit-node")
    routes = advertised_routes(flags.text("advertise-routes"), flags.on("advertise-exit-node"))
    check_hostname(flags.text("hostname"))
    prefs: JSON = {
        "ControlURL": flags.text("login-server"),
        "RouteAll": flags.on("accept-routes"),
        "ExitNodeID": "",
        "ExitNodeIP": exit_node_choice(status, exit_node) if exit_node and not automatic else "",
        "AutoExitNode": exit_node.removeprefix(AUTO_EXIT_NODE) if automatic else "",
        "InternalExitNodePrior": "",
        "ExitNodeAllowLANAccess": flags.on("exit-node-allow-lan-access"),
        "CorpDNS": flags.on("accept-dns"),
        "RunSSH": flags.on("ssh"),
        "RunWebClient": False,
        "WantRunning": True,
        "LoggedOut": False,
        "ShieldsUp": flags.on("shields-up"),
        "AdvertiseTags": tags_of(flags.text("advertise-tags")),
        "Hostname": flags.text("hostname"),
        "NotepadURLs": False,
        "AdvertiseRoutes": routes,
        "NoSNAT": False,
        "NoStatefulFiltering": True,
        "NetfilterMode": 2,
        "OperatorUser": flags.text("operator"),
        "ProfileName": str(flags.values.get("nickname", "")),
        "AutoUpdate": {"Check": True, "Apply": None},
        "AppConnector": {"Advertise": flags.on("advertise-connector")},
        "PostureChecking": flags.on("report-posture"),
        "NetfilterKind": "",
        "DriveShares": None,
        "Config": None,
    }
    if "netfilter-mode" in flags.values:
        prefs["NoSNAT"] = not flags.on("snat-subnet-routes")
        prefs["NoStatefulFiltering"] = not flags.on("stateful-filtering")
        prefs["NetfilterMode"], note = netfilter_mode(flags.text("netfilter-mode"))
        if note:
            warn(note)
    if prefs["NoSNAT"] and has_exit_routes(routes):
        warn("--snat-subnet-routes=false with --advertise-exit-node: traffic through this exit node may not return")
    return prefs


def keep_implicit_operator(prefs: JSON, current: JSON, flags: Parsed) -> None:
    """Whoever is the operator and runs `up` without --operator stays the operator."""
    operator = current.get("OperatorUser") or ""
    if operator and operator == os.environ.get("USER") and "operator" not in flags.given:
        prefs["OperatorUser"] = prefs["OperatorUser"] or operator


def is_bare_up(flags: Parsed, current: JSON, status: JSON) -> bool:
    """`mesh up` without flags on a node that has been logged in: only bring it up."""
    logged_in = _was_logged_in(current) and status.get("BackendState") != "NeedsLogin"
    return bool(current.get("ControlURL")) and not flags.given and logged_in


def check_reverts(wanted: JSON, current: JSON, status: JSON, flags: Parsed, known: list[Flag]) -> None:
    """CliError with the full command when unmentioned settings would change.

    A node that has never been given a control URL has nothing to revert.
    """
    if not current.get("ControlURL"):
        return
    missing = []
    exit_node = exit_node_address(current, status)
    for flag in known:
        before = flag_value(flag.name, current, exit_node)
        after = flag_value(flag.name, wanted, exit_node_address(wanted, {}))
        if flag.name == "accept-routes" and not _was_logged_in(current):
            continue  # nobody chose it: a fresh daemon's default is not that of this command line
        if before is None or flag.name in flags.given or before == after or _tolerated(flag.name, before, after):
            continue
        missing.append(flag_argument(flag.name, before))
    if missing:
        words = [*_explicit(flags, known), *sorted(missing)]
        raise CliError(f"{REVERT_PREFIX} {' '.join(words)}\n\n")


def _was_logged_in(current: JSON) -> bool:
    user = (current.get("Config") or {}).get("UserProfile") or {}
    return bool(user.get("LoginName"))


def _tolerated(flag: str, before: bool | str, after: bool | str | None) -> bool:
    if flag == "login-server":
        return is_login_server_synonym(str(before)) and is_login_server_synonym(str(after))
    return flag == "stateful-filtering" and before is True and after is False


def _explicit(flags: Parsed, known: list[Flag]) -> list[str]:
    """The flags given, as typed in the usual spelling and in alphabetical order; secrets are left out."""
    from meshd.cli.flags import DURATION, format_duration

    kinds = {flag.name: flag.kind for flag in known}
    words = []
    for name in sorted(flags.given):
        value = flags.values[name]
        if name in _SECRET_FLAGS:
            words.append(f"--{name}=...")
        elif kinds[name] == DURATION:
            words.append(f"--{name}={format_duration(float(value))}")
        else:
            words.append(flag_argument(name, value if isinstance(value, bool) else str(value)))
    return words


def edit_of(prefs: JSON, flags: Parsed, known: list[Flag], *, reset: bool) -> JSON:
    """The masked edit for a running node: the flags given, or with `reset` all there are."""
    names = [flag.name for flag in known] if reset else flags.given
    masked: JSON = {"WantRunning": True, "WantRunningSet": True}
    for name in names:
        mark_changed(masked, name)
        for pref in PREFS_OF_FLAG.get(name, ()):
            masked[pref.partition(".")[0]] = prefs[pref.partition(".")[0]]
    if prefs["AutoExitNode"]:
        masked |= {"AutoExitNode": prefs["AutoExitNode"], "AutoExitNodeSet": True}
    return masked


def control_url_changed(prefs: JSON, current: JSON) -> bool:
    """Whether the node would have to talk to another control server."""
    before, after = str(current.get("ControlURL") or ""), str(prefs["ControlURL"])
    return before != after and not (is_login_server_synonym(before) and is_login_server_synonym(after))
