"""What is wrong with this node right now, in words for the user.

Each problem has a code; setting the same code again replaces its text, clearing removes it.
"""

from __future__ import annotations

from collections.abc import Callable


class Health:
    """The current problems, in the order in which they appeared."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._problems: dict[str, str] = {}

    def set(self, code: str, text: str | None) -> None:
        """Raise, reword or (with None or "") clear a problem."""
        before = self._problems.get(code)
        if text:
            self._problems[code] = text
        else:
            self._problems.pop(code, None)
        if before != self._problems.get(code):
            self._changed()

    def texts(self) -> list[str]:
        return list(self._problems.values())

    def warnings(self) -> dict[str, dict[str, str]]:
        """For the notify bus: code to description."""
        return {
            code: {"WarnableCode": code, "Severity": "medium", "Title": code.replace("-", " "), "Text": text}
            for code, text in self._problems.items()
        }
