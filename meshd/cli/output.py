"""Printing: aligned columns, and strings of strangers made harmless."""

from __future__ import annotations

import json
import sys
from typing import Any

from meshd.base.standardstreams import writes_unicode

_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def out(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def err(text: str) -> None:
    """Text on stderr, as it is."""
    sys.stderr.write(text)


def warn(text: str) -> None:
    """A warning, where the reference puts them: on stdout."""
    out(f"Warning: {text}")


def out_json(value: Any, indent: str | int = "\t") -> None:
    """Indented JSON on stdout."""
    out(json_text(json.dumps(value, indent=indent, ensure_ascii=False)))


def json_text(text: str) -> str:
    """JSON with the control characters escaped that the format lets stand, but a terminal obeys, and with all
    characters that standard output may not be able to take."""
    if text.isascii() and "\x7f" not in text:
        return text
    if writes_unicode(sys.stdout):
        return text.translate(_CONTROLS)
    return "".join(c if c.isascii() and c != "\x7f" else json.dumps(c)[1:-1] for c in text).translate(_CONTROLS)


def printable(text: object) -> str:
    """Text from another machine with its control characters made visible: a host name must not drive a terminal."""
    plain = str(text)
    return (
        plain if plain.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in plain)
    )


def printable_lines(text: object, indent: str = "") -> str:
    """As `printable`, but a message may have several lines; all but the first are indented."""
    return ("\n" + indent).join(printable(line) for line in str(text).splitlines())


def columns(rows: list[list[str]], *, padding: int = 2, minimum: int = 0, trailing: bool = False) -> str:
    """Rows with every column as wide as its longest cell; the last cell of a row is not padded unless `trailing`.

    A cell counts towards its column's width only where another cell follows it (or with `trailing`).
    """
    widths: list[int] = []
    for row in rows:
        cells = row if trailing else row[:-1]
        for index, cell in enumerate(cells):
            while len(widths) <= index:
                widths.append(minimum)
            widths[index] = max(widths[index], len(cell) + padding)
    lines = []
    for row in rows:
        padded = len(row) if trailing else len(row) - 1
        lines.append("".join(c.ljust(widths[i]) if i < padded else c for i, c in enumerate(row)))
    return "".join(line + "\n" for line in lines)


def without_keys(text: str) -> str:
    """A text with the auth keys in it made unreadable: what a user typed wrongly may be printed."""
    import re

    return re.sub(r"(tskey-|hskey-|mesh-auth-)([A-Za-z0-9_-]+)", lambda key: key[1] + "X" * len(key[2]), text)
