"""Metrics that local programs count and hand over: they are shown with the daemon's own."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from meshd.base.errors import MeshdError

MAX_METRICS = 1000  # names that clients may make up
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_KINDS = ("counter", "gauge")


class ClientMetrics:
    """Name to kind and value."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._values: dict[str, int] = {}

    def update(self, updates: list[Any], taken: Collection[str]) -> None:
        """Apply ``[{name, type, value, op?}]``, all or nothing. ``taken`` are the daemon's own names.

        Raises MeshdError "invalid".
        """
        kinds, values = dict(self._kinds), dict(self._values)
        for update in updates:
            if not isinstance(update, dict):
                raise _bad("invalid JSON body")
            name, kind = update.get("name"), update.get("type")
            value, operation = update.get("value", 0), update.get("op") or "add"
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise _bad(f"bad metric name {name!r}: lower-case letters, digits and _ only")
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
                raise _bad("invalid JSON body")
            if name not in kinds:
                if name in taken:
                    raise _bad(f"Already have a metric named {name}")
                if kind not in _KINDS:
                    raise _bad(f"Unknown metric type {kind}")
                if len(kinds) >= MAX_METRICS:
                    raise _bad("too many metrics")
                kinds[name] = kind
            if operation not in ("add", "set"):
                raise _bad(f"Unknown metric op {operation}")
            values[name] = value if operation == "set" else values.get(name, 0) + value
        self._kinds, self._values = kinds, values

    def text(self) -> str:
        """In Prometheus text form."""
        return "".join(f"# TYPE {n} {self._kinds[n]}\n{n} {v}\n" for n, v in sorted(self._values.items()))


def _bad(text: str) -> MeshdError:
    return MeshdError(text, code="invalid")
