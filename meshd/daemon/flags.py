"""The daemon's command line: the flags of tailscaled, by the rules of Go's flag package.

``-x`` and ``--x`` are the same, a value stands behind ``=`` or in the next argument, a boolean takes only ``=``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from meshd.base.errors import MeshdError

DEFAULT_SOCKET = "/run/meshd/meshd.sock"
DEFAULT_STATE = "/var/lib/meshd/meshd.state"

_HELP = {
    "tun": 'tunnel interface, or "userspace-networking" for none; a comma-separated list is tried in order',
    "port": "UDP port for WireGuard and peer-to-peer traffic; 0 picks one",
    "state": 'path of the state file, or "mem:" to keep nothing (the node is then ephemeral)',
    "statedir": "directory for state and other files; the default is the directory of --state",
    "socket": "path of the service's Unix socket",
    "socks5-server": "address of a SOCKS5 server that reaches the mesh, such as localhost:1080",
    "debug": "address of an HTTP server with /debug/metrics, on the loopback interface",
    "verbose": "log level: 0 is normal, 1 and above are more",
    "no-logs-no-support": "accepted; meshd never sends logs anywhere",
    "cleanup": "undo what an earlier meshd left on this host, and exit",
    "version": "print the version and exit",
}


@dataclass(slots=True)
class Flags:
    """What the command line said; defaults where it said nothing."""

    tun: str = "mesh0"
    port: int = 0
    state: str = ""
    statedir: str = ""
    socket: str = DEFAULT_SOCKET
    socks5_server: str = ""
    debug: str = ""
    verbose: int = 0
    no_logs_no_support: bool = False
    cleanup: bool = False
    version: bool = False


class HelpWanted(Exception):
    """``-h`` or ``--help`` was given; the text is the usage."""


def usage() -> str:
    lines = ["Usage: meshd [flags]", "", "Flags:"]
    for field in fields(Flags):
        name = field.name.replace("_", "-")
        default = "" if field.default in ("", 0, False) else f" (default {field.default})"
        lines.append(f"  --{name}\n        {_HELP[name]}{default}")
    return "\n".join(lines) + "\n"


def parse_flags(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Flags:
    """Raises MeshdError "usage" naming the bad argument, HelpWanted for ``--help``."""
    flags = Flags()
    flags.port = _port(environment.get("PORT") or "0", "the environment variable PORT")
    known = {field.name.replace("_", "-"): field.name for field in fields(Flags)}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith("-") or argument in ("-", "--"):
            rest = queue if argument == "--" else [argument, *queue]
            if rest:
                raise _usage_error(f"meshd does not take non-flag arguments: {' '.join(rest)}")
            break
        name, equals, value = argument.lstrip("-").partition("=")
        if name in ("h", "help"):
            raise HelpWanted(usage())
        attribute = known.get(name)
        if attribute is None:
            raise _usage_error(f"flag provided but not defined: -{name}")
        if isinstance(getattr(flags, attribute), bool):
            setattr(flags, attribute, _boolean(name, value) if equals else True)
            continue
        if not equals:
            if not queue:
                raise _usage_error(f"flag needs an argument: -{name}")
            value = queue.pop(0)
        if name == "port":
            flags.port = _port(value, "--port")
        elif name == "verbose":
            flags.verbose = _number(name, value)
        else:
            setattr(flags, attribute, value)
    _complete(flags)
    return flags


def _complete(flags: Flags) -> None:
    """State and its directory follow from each other."""
    if not flags.socket:
        raise _usage_error("--socket is required")
    if not flags.state:
        flags.state = os.path.join(flags.statedir, "meshd.state") if flags.statedir else DEFAULT_STATE
    if not flags.statedir and not flags.state.startswith("mem:"):
        flags.statedir = os.path.dirname(os.path.abspath(flags.state))


def _boolean(name: str, value: str) -> bool:
    lowered = value.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise _usage_error(f'invalid boolean value "{value}" for -{name}')


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _usage_error(f'invalid value "{value}" for flag -{name}: not a number') from None


def _port(value: str, where: str) -> int:
    if value.isascii() and value.isdigit() and int(value) <= 65535:
        return int(value)
    raise _usage_error(f'invalid value "{value}" for {where}: expected a port from 0 to 65535')


def _usage_error(message: str) -> MeshdError:
    return MeshdError(message, code="usage", hint="Run meshd --help for the flags.")
