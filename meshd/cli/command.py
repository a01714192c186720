"""What a command is, and its help."""

from __future__ import annotations

from collections.abc import Callable

from meshd.cli.client import LocalClient
from meshd.cli.flags import Flag, Parsed

Run = Callable[[LocalClient, Parsed], None]


class Command:
    """A command with its flags, its help and the function that runs it.

    `show_defaults` off: help says nothing of default values, because the command has none.
    """

    __slots__ = ("flags", "long", "name", "run", "short", "show_defaults", "usage")

    def __init__(
        self,
        name: str,
        *,
        usage: str,
        short: str,
        run: Run,
        long: str = "",
        flags: list[Flag] | None = None,
        show_defaults: bool = True,
    ) -> None:
        self.name = name
        self.usage = usage
        self.short = short
        self.long = long
        self.flags = flags or []
        self.run = run
        self.show_defaults = show_defaults

    def help(self) -> str:
        """The help text."""
        parts = [self.short, "USAGE\n" + "".join(f"  {line}\n" for line in self.usage.splitlines()).rstrip("\n")]
        if self.long:
            parts.append(self.long.strip("\n"))
        visible = sorted((flag for flag in self.flags if not flag.hidden), key=lambda flag: flag.name)
        if visible:
            lines = [flag.usage() for flag in visible]
            if not self.show_defaults:
                lines = [line.partition(" (default ")[0] for line in lines]
            parts.append("FLAGS\n" + "\n".join(lines))
        return "\n\n".join(parts) + "\n"
