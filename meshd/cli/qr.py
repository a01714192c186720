"""QR codes of login URLs, for those who log in with a telephone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshd.cli.errors import CliError

FORMATS = ("auto", "ascii", "large", "small")

_BORDER = 2
"""Light modules around the code; readers want some."""


def check_format(style: str) -> None:
    """CliError unless QR codes of that format can be drawn here: to be asked before anything is done."""
    if style not in FORMATS:
        raise CliError(f'unknown QR code format "{style}": {", ".join(FORMATS)}')
    _segno()


def draw(text: str, style: str = "auto", *, unicode: bool = True) -> str:
    """The code as lines of characters, dark on light where the terminal is light on dark.

    `auto` is `small` where block characters can be shown, else `ascii`.
    """
    if style == "auto":
        style = "small" if unicode else "ascii"
    rows = [bytearray(row) for row in _segno().make(text, error="l", micro=False).matrix]
    width = len(rows[0]) + 2 * _BORDER
    blank = [bytearray(width) for _ in range(_BORDER)]
    rows = [*blank, *(bytearray(_BORDER) + row + bytearray(_BORDER) for row in rows), *blank]
    return "".join(line + "\n" for line in (_half_blocks(rows) if style == "small" else _cells(rows, style)))


def png(text: str) -> str:
    """The code as a data URL with a picture; "" where the package for it is not installed."""
    try:
        return str(_segno().make(text, error="l", micro=False).png_data_uri(scale=4))
    except CliError:
        return ""


def _cells(rows: Sequence[bytearray], style: str) -> list[str]:
    light, dark = ("##", "  ") if style == "ascii" else ("\N{FULL BLOCK}" * 2, "  ")
    return ["".join(dark if module else light for module in row) for row in rows]


def _half_blocks(rows: Sequence[bytearray]) -> list[str]:
    """Two rows of modules in one of characters."""
    characters = ("\N{FULL BLOCK}", "\N{UPPER HALF BLOCK}", "\N{LOWER HALF BLOCK}", " ")
    lines = []
    for index in range(0, len(rows), 2):
        below = rows[index + 1] if index + 1 < len(rows) else bytearray(b"\1" * len(rows[index]))
        lines.append("".join(characters[upper * 2 + lower] for upper, lower in zip(rows[index], below, strict=True)))
    return lines


def _segno() -> Any:
    try:
        import segno
    except ImportError:
        raise CliError("QR codes need the package segno: pip install segno") from None
    return segno
