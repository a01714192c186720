"""The two error families of meshd.

MeshdError            something a user or operator must know: a message, a hint, facts
WireError(ValueError) bytes from outside that are not what the format says
"""

from __future__ import annotations


class MeshdError(Exception):
    """A failure with a text for the user.

    ``code`` is a stable word that exit codes and HTTP status codes are derived from, ``hint`` says what
    to do next and prints on a line of its own, ``facts`` are fields for the log. None of them may hold a
    secret.
    """

    def __init__(self, message: str, *, code: str = "internal", hint: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class WireError(ValueError):
    """Malformed input. ``offset`` is where in the input, ``expected`` what should have stood there."""

    def __init__(self, message: str, *, offset: int | None = None, expected: str | None = None) -> None:
        detail = message
        if expected is not None:
            detail += f", expected {expected}"
        if offset is not None:
            detail += f" at byte {offset}"
        super().__init__(detail)
        self.offset = offset
        self.expected = expected
