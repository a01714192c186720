"""What a command is, how commands nest, and their help."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, cast

from meshd.cli.client import LocalClient
from meshd.cli.flags import Flag, Parsed

Run = Callable[[LocalClient, Parsed], None]


class Part(NamedTuple):
    """A subcommand by where it is defined: its module, below meshd.cli.commands, is imported only when it is needed.

    `hidden` keeps it out of the help and of completion.
    """

    name: str
    short: str
    module: str
    attribute: str = "COMMAND"
    hidden: bool = False

    def load(self) -> Command:
        """The command itself."""
        return cast("Command", getattr(import_module("meshd.cli.commands." + self.module), self.attribute))


class Command:
    """A command with its flags, its help, its subcommands and the function that runs it.

    A command with `parts` and without `run` only exists for its subcommands. `show_defaults` off: help says nothing
    of default values, because the command has none. `arguments` off: the first argument of a command that has both
    `parts` and `run` must be a subcommand. `complete` gives the words that an argument may be, for the shell.
    """

    __slots__ = ("arguments", "complete", "flags", "long", "name", "parts", "run", "short", "show_defaults", "usage")

    def __init__(
        self,
        name: str,
        *,
        usage: str,
        short: str,
        run: Run | None = None,
        long: str = "",
        flags: list[Flag] | None = None,
        parts: list[Part] | None = None,
        show_defaults: bool = True,
        arguments: bool = False,
        complete: Callable[[LocalClient, list[str]], list[str]] | None = None,
    ) -> None:
        self.name = name
        self.usage = usage
        self.short = short
        self.long = long
        self.flags = flags or []
        self.parts = parts or []
        self.run = run
        self.show_defaults = show_defaults
        self.arguments = arguments
        self.complete = complete

    def part(self, name: str) -> Part | None:
        """The subcommand of that name."""
        return next((part for part in self.parts if part.name == name), None)

    def help(self) -> str:
        """The help text."""
        parts = [self.short, "USAGE\n" + "".join(f"  {line}\n" for line in self.usage.splitlines()).rstrip("\n")]
        if self.long:
            parts.append(self.long.strip("\n"))
        shown = [part for part in self.parts if not part.hidden]
        if shown:
            width = max(len(part.name) for part in shown) + 2
            parts.append("SUBCOMMANDS\n" + "\n".join(f"  {part.name.ljust(width)}{part.short}" for part in shown))
        visible = sorted((flag for flag in self.flags if not flag.hidden), key=lambda flag: flag.name)
        if visible:
            lines = [flag.usage() for flag in visible]
            if not self.show_defaults:
                lines = [line.partition(" (default ")[0] for line in lines]
            parts.append("FLAGS\n" + "\n".join(lines))
        return "\n\n".join(parts) + "\n"
