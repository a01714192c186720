"""Picks the command, runs it, and turns every failure into a message and an exit code."""

from __future__ import annotations

import os
import sys

from meshd.base.standardstreams import is_output_error, open_standard_streams, unwritten
from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import AccessDenied, CliError, Exit, HelpRequested, UsageError
from meshd.cli.flags import Parsed, parse_flags
from meshd.cli.output import without_keys
from meshd.cli.tree import root_command

_SECRET_FLAGS = frozenset(("auth-key", "client-secret", "id-token"))
_RENAMED = {"authkey": "auth-key", "posture-checking": "report-posture"}


def run(words: list[str]) -> int:
    """Run the command of these words; returns the exit code."""
    open_standard_streams()
    try:
        code = _run(_clean(words))
        sys.stdout.flush()
        return code
    except OSError as error:
        return unwritten(error, "mesh: ")


def _run(args: list[str]) -> int:
    try:
        return _dispatch(args)
    except Exit as end:
        return end.code
    except AccessDenied as error:
        sys.stderr.write(error.message + "\n")
        if os.getuid() != 0:
            words = without_keys(" ".join(_without_secrets(args)))
            sys.stderr.write(
                f"\nUse 'sudo mesh {words}'.\nTo not require root, use 'sudo mesh set --operator=$USER' once.\n"
            )
        return 1
    except CliError as error:
        sys.stderr.write(without_keys(error.message).rstrip("\n") + "\n")
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_output_error(error):
            return unwritten(error, "mesh: ")
        if isinstance(error, UnicodeEncodeError) and (wrong := _not_text(error)):
            sys.stderr.write(f"mesh: an argument is no text in UTF-8, with {wrong} in it\n")
            return 1
        if os.environ.get("MESHD_DEBUG"):
            raise
        sys.stderr.write(
            f"mesh: unexpected {type(error).__name__}: {error}\nThis is a bug; MESHD_DEBUG=1 shows where it is.\n"
        )
        return 1


def _not_text(error: UnicodeEncodeError) -> str:
    """The bytes of an argument that could not be decoded, if they are what cannot be encoded now."""
    wrong = error.object[error.start : error.end]
    return "".join(f"\\x{ord(c) & 0xFF:02x}" for c in wrong if "\udc80" <= c <= "\udcff")


def _dispatch(args: list[str]) -> int:
    """Walk down the tree of commands along the arguments, and run what is found."""
    command, path = root_command(), "mesh"
    client: LocalClient | None = None
    while True:
        try:
            parsed = parse_flags(command.flags, args)
        except HelpRequested:
            sys.stdout.write(command.help())
            return 0
        except UsageError as error:
            sys.stderr.write(f"{without_keys(str(error))}\n{command.help()}")
            return 2
        if client is None:
            client = LocalClient(parsed.text("socket"))
            if os.environ.get("TS_DUMP_HELP", "").lower() in ("1", "t", "true"):
                from meshd.cli.docs import print_help

                print_help(command)
                return 0
            if parsed.on("json-docs"):
                from meshd.cli.docs import print_docs

                print_docs(command)
                return 0
        part = command.part(parsed.args[0]) if parsed.args else None
        if part is None:
            return _run_here(command, path, client, parsed)
        command, path, args = part.load(), f"{path} {part.name}", parsed.args[1:]


def _run_here(command: Command, path: str, client: LocalClient, parsed: Parsed) -> int:
    if command.parts and parsed.args and not command.arguments:
        raise CliError(f"{path}: unknown subcommand: {parsed.args[0]}")
    if command.run is not None:
        command.run(client, parsed)
        return 0
    if path == "mesh":
        sys.stdout.write(command.help())
        return 0
    raise CliError(f"{path}: missing subcommand: {', '.join(part.name for part in command.parts)}")


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
        elif name in _SECRET_FLAGS and equals:
            arg = f"--{name}=..."
        hide = name in _SECRET_FLAGS and not equals
        shown.append(arg)
    return shown
