"""The Retry-After header (RFC 9110 10.2.3): seconds, or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)


def parse_retry_after(value: str, wall: float) -> float | None:
    """Seconds from ``wall`` (unix seconds); None when the value is neither. May be negative."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    found = _DATE.fullmatch(value)
    if found is None or found[2] not in _MONTHS:
        return None
    day, _, year, hour, minute, second = found.groups()
    try:
        moment = datetime(
            int(year), _MONTHS.index(found[2]) + 1, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC
        )
    except ValueError:
        return None
    return moment.timestamp() - wall
