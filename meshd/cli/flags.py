"""Command-line flags with the rules of Go's flag package, which users of this command line know.

`-x` and `--x` are the same, values follow as `--x=v` or `--x v`, booleans take a value only as `--x=v`, parsing stops
at the first argument that is not a flag or at `--`, and no flag may be given twice.
"""

from __future__ import annotations

from meshd.cli.errors import HelpRequested, UsageError

BOOL = "bool"
STRING = "string"
INT = "int"
DURATION = "duration"
TRUE_ONLY = "true"

Value = bool | str | int | float

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_INT = 1 << 63
_MAX_NANOSECONDS = (1 << 63) - 1


class Flag:
    """One flag. Durations are seconds. `hidden` keeps it out of the help."""

    __slots__ = ("default", "help", "hidden", "kind", "name")

    def __init__(self, name: str, kind: str, default: Value, help: str, *, hidden: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help
        self.hidden = hidden

    @property
    def is_bool(self) -> bool:
        return self.kind in (BOOL, TRUE_ONLY)

    def parse(self, text: str) -> Value:
        """The value of a text; ValueError with the complaint."""
        if self.kind == STRING:
            return text
        if self.kind == INT:
            return _parse_int(text)
        if self.kind == DURATION:
            return parse_duration(text)
        if text not in _TRUE and text not in _FALSE:
            raise ValueError("parse error")
        if self.kind == TRUE_ONLY and text not in _TRUE:
            raise ValueError("unsupported value; only 'true' is allowed")
        return text in _TRUE

    def usage(self) -> str:
        """Its two lines of help."""
        if self.is_bool:
            head = f"  --{self.name}, --{self.name}=false"
        else:
            head = f"  --{self.name} value"
        return f"{head}\n    \t{self.help}{self._default_text()}"

    def _default_text(self) -> str:
        if self.kind == BOOL:
            return f" (default {str(self.default).lower()})"
        if self.kind == DURATION:
            return f" (default {format_duration(float(self.default))})"
        return f" (default {self.default})" if self.default != "" else ""


class Parsed:
    """The outcome: values by flag name, the names in the order given, what follows the flags."""

    __slots__ = ("args", "given", "values")

    def __init__(self, values: dict[str, Value], given: list[str], args: list[str]) -> None:
        self.values = values
        self.given = given
        self.args = args

    def text(self, name: str) -> str:
        """A string flag."""
        return str(self.values[name])

    def on(self, name: str) -> bool:
        """A boolean flag."""
        return bool(self.values[name])

    def seconds(self, name: str) -> float:
        """A duration flag."""
        return float(self.values[name])

    def number(self, name: str) -> int:
        """An integer flag."""
        return int(self.values[name])


def parse_flags(flags: list[Flag], argv: list[str]) -> Parsed:
    """Parse the flags at the head of `argv`.

    Raises:
        UsageError, HelpRequested.
    """
    known = {flag.name: flag for flag in flags}
    values: dict[str, Value] = {flag.name: flag.default for flag in flags}
    given: list[str] = []
    rest = list(argv)
    while rest:
        word = rest[0]
        if len(word) < 2 or word[0] != "-":
            break
        rest.pop(0)
        if word == "--":
            break
        name, equals, text = word[2 if word.startswith("--") else 1 :].partition("=")
        if not name or name[0] in "-=":
            raise UsageError(f"bad flag syntax: {word}")
        flag = known.get(name)
        if flag is None:
            if name in ("h", "help"):
                raise HelpRequested
            raise UsageError(f"flag provided but not defined: -{name}")
        if not equals:
            if flag.is_bool:
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise UsageError(f"flag needs an argument: -{name}")
        values[name] = _value(flag, text, given)
        given.append(name)
    return Parsed(values, given, rest)


def _value(flag: Flag, text: str, given: list[str]) -> Value:
    kind = "boolean value" if flag.is_bool else "value"
    where = f"-{flag.name}" if flag.is_bool else f"flag -{flag.name}"
    if flag.name in given:
        raise UsageError(f'invalid {kind} "{text}" for {where}: flag provided multiple times')
    try:
        return flag.parse(text)
    except ValueError as error:
        raise UsageError(f'invalid {kind} "{text}" for {where}: {error}') from None


def _parse_int(text: str) -> int:
    try:
        number = int(_with_octal(text), 0) if text.isascii() and not any(c.isspace() for c in text) else None
    except ValueError:
        number = None
    if number is None:
        raise ValueError("parse error")
    if not -_MAX_INT <= number < _MAX_INT:
        raise ValueError("value out of range")
    return number


def _with_octal(text: str) -> str:
    """`010` as `0o10`: Go reads it so, Python not at all."""
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return f"{text[: len(text) - len(digits)]}0o{digits}"
    return text


def parse_duration(text: str) -> float:
    """Seconds of `1h2m3.5s`, `300ms`, `0`; ValueError otherwise, also for more than Go's durations hold (292 years)."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0.0
    total = 0.0
    if not body:
        raise ValueError("parse error")
    while body:
        digits = 0
        while digits < len(body) and (body[digits] in "0123456789."):
            digits += 1
        unit = digits
        while unit < len(body) and body[unit] not in "0123456789.":
            unit += 1
        number, name = body[:digits], body[digits:unit]
        if name not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise ValueError("parse error")
        total += float(number) * _UNITS[name]
        body = body[unit:]
    if total * 1e9 > _MAX_NANOSECONDS:
        raise ValueError("value out of range")
    return -total if text[0] == "-" else total


def format_duration(seconds: float) -> str:
    """As Go prints a duration: `0s`, `12ms`, `1.5s`, `1m30s`, `2h0m0s`."""
    nanos = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 and nanos else ""
    if nanos == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanos < size * 1000:
            return f"{sign}{_trimmed(nanos / size)}{unit}"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_trimmed(rest / 1e9)}s"


def _trimmed(number: float) -> str:
    text = f"{number:.9f}".rstrip("0").rstrip(".")
    return text or "0"
