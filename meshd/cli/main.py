"""`mesh`: picks the command, runs it, and turns every failure into a message and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import cast

from meshd.cli.client import DEFAULT_SOCKET, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import AccessDenied, CliError, Exit, HelpRequested, UsageError
from meshd.cli.flags import STRING, Flag, parse_flags

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Connect to the mesh, logging in if needed"),
    "down": ("down", "Disconnect from the mesh"),
    "set": ("set", "Change the settings that are named"),
    "get": ("get", "Show the current settings"),
    "login": ("login", "Log in to a network"),
    "logout": ("logout", "Disconnect and expire the node key"),
    "switch": ("switch", "Switch to another login profile"),
    "netcheck": ("netcheck", "Report on the network that this machine is in"),
    "ip": ("ip", "Show mesh IP addresses"),
    "status": ("status", "Show the state of meshd and its connections"),
    "ping": ("ping", "Ping a node through the mesh and see how it was reached"),
    "version": ("version", "Print the version"),
    "whois": ("whois", "Show the machine and user behind a mesh address"),
}
"""Commands in the order of the help: module below meshd.cli.commands, and one line of help."""

_SHORT = "A mesh of WireGuard tunnels."

_LONG = 'For help on a command, add --help after it: "mesh status --help".'

_RENAMED = {"authkey": "auth-key", "posture-checking": "report-posture"}


def default_socket() -> str:
    """The daemon's socket unless --socket says otherwise."""
    return os.environ.get("MESHD_SOCKET") or DEFAULT_SOCKET


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _clean(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output is gone; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 1 if args and args[0] in ("up", "login") else 130


def _run(args: list[str]) -> int:
    try:
        return _dispatch(args)
    except Exit as end:
        return end.code
    except AccessDenied as error:
        sys.stderr.write(error.message + "\n")
        if os.getuid() != 0:
            words = " ".join(_without_secrets(args))
            sys.stderr.write(
                f"\nUse 'sudo mesh {words}'.\nTo not require root, use 'sudo mesh set --operator=$USER' once.\n"
            )
        return 1
    except CliError as error:
        sys.stderr.write(error.message.rstrip("\n") + "\n")
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("MESHD_DEBUG"):
            raise
        sys.stderr.write(
            f"mesh: unexpected {type(error).__name__}: {error}\nThis is a bug; MESHD_DEBUG=1 shows where it is.\n"
        )
        return 1


def _dispatch(args: list[str]) -> int:
    flags = [Flag("socket", STRING, default_socket(), "path of meshd's socket")]
    try:
        parsed = parse_flags(flags, args)
    except HelpRequested:
        sys.stdout.write(root_help(flags))
        return 0
    except UsageError as error:
        sys.stderr.write(f"{error}\n{root_help(flags)}")
        return 2
    if not parsed.args:
        sys.stdout.write(root_help(flags))
        return 0
    name, *rest = parsed.args
    if name not in COMMANDS:
        raise CliError(f"mesh: unknown subcommand: {name}")
    command = load(name)
    try:
        own = parse_flags(command.flags, rest)
    except HelpRequested:
        sys.stdout.write(command.help())
        return 0
    except UsageError as error:
        sys.stderr.write(f"{error}\n{command.help()}")
        return 2
    command.run(LocalClient(parsed.text("socket")), own)
    return 0


def load(name: str) -> Command:
    """The command of that name; its module is imported only now."""
    module = import_module("meshd.cli.commands." + COMMANDS[name][0] + "_command")
    return cast("Command", module.COMMAND)


def root_help(flags: list[Flag]) -> str:
    """The help of `mesh` itself."""
    width = max(len(name) for name in COMMANDS) + 2
    commands = "\n".join(f"  {name.ljust(width)}{short}" for name, (_, short) in COMMANDS.items())
    return (
        f"{_SHORT}\n\nUSAGE\n  mesh [flags] <subcommand> [command flags]\n\n{_LONG}\n\n"
        f"SUBCOMMANDS\n{commands}\n\nFLAGS\n" + "\n".join(flag.usage() for flag in flags) + "\n"
    )


def _clean(args: list[str]) -> list[str]:
    """Old spellings of flags, and the words people try first."""
    if len(args) == 1 and args[0] in ("-V", "--version"):
        return ["version"]
    if len(args) == 1 and args[0] == "help":
        return ["--help"]
    cleaned: list[str] = []
    for index, arg in enumerate(args):
        if arg == "--":
            return cleaned + args[index:]
        dashes = len(arg) - len(arg.lstrip("-"))
        name, equals, value = arg[dashes:].partition("=")
        if dashes in (1, 2) and name in _RENAMED:
            arg = f"--{_RENAMED[name]}{equals}{value}"
        cleaned.append(arg)
    return cleaned


def _without_secrets(args: list[str]) -> list[str]:
    shown: list[str] = []
    hide = False
    for arg in args:
        name, equals, _ = arg.lstrip("-").partition("=")
        if hide:
            arg = "..."
        elif name == "auth-key" and equals:
            arg = "--auth-key=..."
        hide = name == "auth-key" and not equals
        shown.append(arg)
    return shown


if __name__ == "__main__":
    sys.exit(main())
