"""The daemon's command line: the flags of tailscaled, by the rules of Go's flag package.

``-x`` and ``--x`` are the same, a value stands behind ``=`` or in the next argument, a boolean takes only ``=``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.socketpath import DEFAULT_SOCKET
from meshd.daemon.statepath import default_state

DEFAULT_MTU = 1280  # what every path carries; peers expect it, and IPv6 asks for no less
MAX_MTU = 65408  # sealed it still fits one UDP datagram
DEFAULT_POLICY = "/etc/meshd/policy.json"

_HELP = {
    "tun": 'tunnel interface, or "userspace-networking" for none; a comma-separated list is tried in order',
    "port": "UDP port for WireGuard and peer-to-peer traffic; 0 picks one",
    "state": 'path of the state file, "kube:NAME" for a Kubernetes secret, '
    'or "mem:" to keep nothing (the node is then ephemeral)',
    "encrypt-state": "encrypt the state file, which is the default; with =false an encrypted one becomes plain again",
    "statedir": "directory for state and other files; the default is the directory of --state",
    "socket": "path of the service's Unix socket",
    "socks5-server": "address of a SOCKS5 server that reaches the mesh, such as localhost:1080",
    "outbound-http-proxy-listen": "address of an HTTP proxy that reaches the mesh; it may be that of --socks5-server",
    "debug": "address of an HTTP server with /debug/metrics, /debug/ipn and others, on the loopback interface",
    "bird-socket": "refused: meshd does not switch BIRD's protocols",
    "hardware-attestation": "refused when true: meshd has no keys that are bound to hardware",
    "syslog": "write the log to the system's log instead of standard error",
    "config": 'path of a configuration file, or "vm:user-data"; after "optional:" it may be absent',
    "syspolicy-file": "path of a file with the system policy, settings over which users have no say; it may be absent",
    "verbose": "log level: 0 is normal, 1 and above are more",
    "no-logs-no-support": "accepted; meshd never sends logs anywhere",
    "cleanup": "undo what an earlier meshd left on this host, and exit",
    "version": "print the version and exit",
}

_COMMANDS = {
    "debug": "For that there is: mesh debug --help",
    "be-child": "This version of meshd has no SSH server.",
    "serve-taildrive": "This version of meshd shares no directories.",
    "install-system-daemon": "Install scripts/packaging/meshd.service, or the package of your distribution.",
    "uninstall-system-daemon": "Remove the package, or: systemctl disable --now meshd",
}
"""First words that other daemons take, with what to do instead."""


class Flags(msgspec.Struct):
    """What the command line said; defaults where it said nothing."""

    tun: str = "mesh0"
    port: int = 0
    state: str = ""
    statedir: str = ""
    encrypt_state: bool | None = None
    socket: str = DEFAULT_SOCKET
    socks5_server: str = ""
    outbound_http_proxy_listen: str = ""
    debug: str = ""
    bird_socket: str = ""
    config: str = ""
    syspolicy_file: str = DEFAULT_POLICY
    verbose: int = 0
    syslog: bool = False
    hardware_attestation: bool = False
    no_logs_no_support: bool = False
    cleanup: bool = False
    version: bool = False


class HelpWanted(Exception):
    """``-h`` or ``--help`` was given; the text is the usage."""


def usage() -> str:
    lines = ["Usage: meshd [flags]", "", "Flags:"]
    for field in msgspec.structs.fields(Flags):
        name = field.name.replace("_", "-")
        default = "" if field.default in ("", 0, False, None) else f" (default {field.default})"
        lines.append(f"  --{name}\n        {_HELP[name]}{default}")
    return "\n".join(lines) + "\n"


def parse_flags(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Flags:
    """Raises MeshdError "usage" naming the bad argument, HelpWanted for ``--help``."""
    flags = Flags()
    flags.port = _port(environment.get("PORT") or "0", "the environment variable PORT")
    flags.verbose = _number("the environment variable TS_LOG_VERBOSITY", environment.get("TS_LOG_VERBOSITY") or "0")
    known = {field.name.replace("_", "-"): field.name for field in msgspec.structs.fields(Flags)}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith("-") or argument in ("-", "--"):
            rest = queue if argument == "--" else [argument, *queue]
            if rest:
                raise _stray(rest)
            break
        name, equals, value = argument.lstrip("-").partition("=")
        if name in ("h", "help"):
            raise HelpWanted(usage())
        attribute = known.get(name)
        if attribute is None:
            raise _usage_error(f"flag provided but not defined: -{name}")
        if attribute == "encrypt_state" or isinstance(getattr(flags, attribute), bool):
            setattr(flags, attribute, _boolean(name, value) if equals else True)
            continue
        if not equals:
            if not queue:
                raise _usage_error(f"flag needs an argument: -{name}")
            value = queue.pop(0)
        if name == "port":
            flags.port = _port(value, "--port")
        elif name == "verbose":
            flags.verbose = _number(f"flag -{name}", value)
        else:
            setattr(flags, attribute, value)
    _complete(flags, environment)
    return flags


def _stray(words: list[str]) -> MeshdError:
    """Arguments that are no flags: none are taken, and some are those of another daemon."""
    error = f"meshd does not take non-flag arguments: {' '.join(words)}"
    hint = _COMMANDS.get(words[0])
    return MeshdError(error, code="usage", hint=hint) if hint else _usage_error(error)


def tunnel_mtu(environment: Mapping[str, str] = os.environ) -> int:
    """The MTU of the tunnel interface; every path carries the default. Raises MeshdError "usage"."""
    text = environment.get("TS_DEBUG_MTU", "")
    if not text:
        return DEFAULT_MTU
    if text.isascii() and text.isdigit() and len(text) <= 5 and DEFAULT_MTU <= int(text) <= MAX_MTU:
        return int(text)
    raise _usage_error(
        f'invalid value "{text}" for the environment variable TS_DEBUG_MTU: expected {DEFAULT_MTU} to {MAX_MTU}'
    )


def _complete(flags: Flags, environment: Mapping[str, str]) -> None:
    """State and its directory follow from each other; what cannot be had is refused."""
    if not flags.socket:
        raise _usage_error("--socket is required")
    if flags.bird_socket:
        raise MeshdError(
            "--bird-socket is not supported: meshd does not switch BIRD's protocols",
            code="usage",
            hint="Leave it out; BIRD can watch the routes of table 52 or the interface of --tun itself.",
        )
    if flags.hardware_attestation:
        raise MeshdError(
            "--hardware-attestation is not supported: meshd has no keys that are bound to hardware",
            code="usage",
            hint="Leave it out; --encrypt-state seals the state file with the TPM where systemd-creds can.",
        )
    _check_addresses(flags)
    if not flags.state:
        place = os.path.join(flags.statedir, "meshd.state") if flags.statedir else ""
        flags.state = place or default_state(environment, os.getuid())
    if not flags.statedir and not is_elsewhere(flags.state):
        flags.statedir = os.path.dirname(os.path.abspath(flags.state))


def _check_addresses(flags: Flags) -> None:
    """Before anything is made on this host for a daemon that could not go on."""
    proxies = {
        "--socks5-server": flags.socks5_server,
        "--outbound-http-proxy-listen": flags.outbound_http_proxy_listen,
    }
    for flag, address in proxies.items():
        if address:
            from meshd.io.listenaddress import parse_listen

            parse_listen(address, flag)
    if flags.debug:
        from meshd.daemon.debugserver import loopback_address

        loopback_address(flags.debug)


def is_elsewhere(state: str) -> bool:
    """Whether ``--state`` names a store that is no file: ``kind:name``."""
    kind, colon, _ = state.partition(":")
    return bool(colon) and "/" not in kind


def _boolean(name: str, value: str) -> bool:
    lowered = value.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise _usage_error(f'invalid boolean value "{value}" for -{name}')


def _number(where: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _usage_error(f'invalid value "{value}" for {where}: not a number') from None


def _port(value: str, where: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535:
        return int(value)
    raise _usage_error(f'invalid value "{value}" for {where}: expected a port from 0 to 65535')


def _usage_error(message: str) -> MeshdError:
    return MeshdError(message, code="usage", hint="Run meshd --help for the flags.")
