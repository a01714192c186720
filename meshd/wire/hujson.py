"""JSON with comments and trailing commas (HuJSON), keeping where every value stands.

    parse('{\\n  // who\\n  "a": [1,],\\n}')   →   Item({"a": Item([Item(1)])})

Besides `//` and `/* */` comments and commas before a closing bracket, the text is plain JSON (RFC 8259).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from math import inf
from typing import Final, NamedTuple

from meshd.base.errors import WireError

MAX_DEPTH: Final = 64
_SPACE: Final = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"')
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_NEWLINE: Final = re.compile(r"\n")
_WORD: Final = re.compile(r"[a-z]+")
_PLAIN_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


class Item(NamedTuple):
    """A value and the place of its first character, both counted from 1."""

    value: bool | int | float | str | list[Item] | dict[str, Item] | None
    line: int
    column: int


class HujsonError(WireError):
    """Text that is not HuJSON; `line` and `column` (from 1) tell where."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"{message} at line {line}, column {column}")
        self.problem = message
        self.line = line
        self.column = column


def parse(text: str) -> Item:
    """The document; `HujsonError` when it is malformed or nested deeper than `MAX_DEPTH`."""
    reader = _Reader(text)
    item = reader.value(0)
    reader.skip()
    if reader.at < len(text):
        raise reader.error("text after the end of the document")
    return item


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._line_starts = [0, *(found.end() for found in _NEWLINE.finditer(text))]

    def place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, at)
        return line, at - self._line_starts[line - 1] + 1

    def error(self, message: str, at: int | None = None) -> HujsonError:
        return HujsonError(message, *self.place(self.at if at is None else at))

    def skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        if self.text.startswith("/*", self.at):
            raise self.error("comment without an end")

    def value(self, depth: int) -> Item:
        self.skip()
        if depth > MAX_DEPTH:
            raise self.error("too many nested brackets")
        start = self.at
        line, column = self.place(start)
        first = self.text[start : start + 1]
        if first == "{":
            return Item(self._object(depth), line, column)
        if first == "[":
            return Item(self._array(depth), line, column)
        if first == '"':
            return Item(self._string(), line, column)
        if first == "-" or first.isdigit():
            return Item(self._number(), line, column)
        word = _WORD.match(self.text, start)
        if word is not None and word[0] in _WORDS:
            self.at = word.end()
            return Item(_WORDS[word[0]], line, column)
        raise self.error("a value is missing" if first in ("", ",", "}", "]") else f"unexpected {first!r}")

    def _object(self, depth: int) -> dict[str, Item]:
        self.at += 1
        members: dict[str, Item] = {}
        while True:
            self.skip()
            if self._take("}"):
                return members
            start = self.at
            if self.text[start : start + 1] != '"':
                raise self.error("a name in double quotes is missing")
            name = self._string()
            if name in members:
                raise self.error(f"the name {name!r} stands twice", start)
            self.skip()
            if not self._take(":"):
                raise self.error("a colon is missing")
            members[name] = self.value(depth + 1)
            self.skip()
            if not self._take(",") and self.text[self.at : self.at + 1] != "}":
                raise self.error("a comma or } is missing")

    def _array(self, depth: int) -> list[Item]:
        self.at += 1
        items: list[Item] = []
        while True:
            self.skip()
            if self._take("]"):
                return items
            items.append(self.value(depth + 1))
            self.skip()
            if not self._take(",") and self.text[self.at : self.at + 1] != "]":
                raise self.error("a comma or ] is missing")

    def _take(self, character: str) -> bool:
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    def _string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if found is None:
            raise self.error("a text without an end, or with a character that must be escaped")
        self.at = found.end()
        body = found[1]
        if "\\" not in body:
            return body
        plain = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _PLAIN_ESCAPES.get(m[2], m[2]), body)
        return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _number(self) -> int | float:
        found = _NUMBER.match(self.text, self.at)
        if found is None or found.end() - self.at > 40:
            raise self.error("not a number")
        number = float(found[0]) if found[1] or found[2] else int(found[0])
        if number in (inf, -inf):
            raise self.error("a number that is too large")
        self.at = found.end()
        return number
