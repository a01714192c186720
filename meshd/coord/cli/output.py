"""What the commands share: the state directory option, tables, JSON, exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from meshd.coord.adminclient import call

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
else:
    _FloatType = click.ParamType

SOCKET_NAME = "admin.sock"
EXIT_CODES = {"usage": 2, "config": 2, "not-found": 3, "conflict": 4, "denied": 5, "unreachable": 6, "busy": 7}
"""Anything else is 1."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdwy])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdwy])")


class Duration(_FloatType):
    """`90s`, `30m`, `12h`, `180d`, `1d12h`; a bare `0` is no time at all. The value is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        text = str(value).strip().lower()
        if text == "0":
            return 0.0
        if not _DURATION.fullmatch(text):
            self.fail(f"{value!r} is not a duration such as 30m, 12h or 180d", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


DURATION = Duration()


def default_state_dir() -> Path:
    """Where the server keeps its state when nothing is said."""
    import os

    if os.geteuid() == 0:
        return Path("/var/lib/mesh-coord")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "mesh-coord"


def state_dir_option(function: F) -> F:
    """`--state-dir`, also from MESH_COORD_STATE_DIR."""
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_state_dir,
        envvar="MESH_COORD_STATE_DIR",
        show_default="/var/lib/mesh-coord",
        help="Directory with the server's database and socket.",
    )(function)


def admin_options(function: F) -> F:
    """The options of every command that talks to the running server."""
    return state_dir_option(click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function))


def ask(state_dir: Path, op: str, **args: Any) -> Any:
    """Run an operation on the server."""
    return call(state_dir / SOCKET_NAME, op, args)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def printable(text: object) -> str:
    """Text from a machine, even one that only asks to join, with its control characters made visible."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns padded to their widest cell; only the titles when there is nothing."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max(len(title), *(len(row[i]) for row in cells)) if cells else len(title) for i, title in enumerate(titles)
    ]
    for row in [list(titles), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(text: str | None) -> str:
    """An RFC 3339 time without fractions, `-` for none."""
    return "-" if text is None else re.sub(r"\.\d+", "", text)
