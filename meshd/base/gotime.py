"""Times as Go's encoding/json writes them: RFC 3339, with year 1 standing for "none"."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

ZERO_TIME = "0001-01-01T00:00:00Z"
_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def format_time(wall: float | None) -> str:
    """RFC 3339 in UTC with up to nanoseconds; None gives the zero time."""
    if wall is None:
        return ZERO_TIME
    seconds, nanos = divmod(round(wall * 1_000_000_000), 1_000_000_000)
    moment = _EPOCH + timedelta(seconds=seconds)
    text = f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}"
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{text}{fraction}Z"


def parse_time(text: str) -> float | None:
    """Unix seconds, or None for the zero time. ValueError when the zone or the ``T`` is missing."""
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not an RFC 3339 time with a zone")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if int(year) <= 1:
        return None
    clock = int(hour) * 3600 + int(minute) * 60 + min(int(second), 59)
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError(f"{text!r} has no such time of day")
    if zone not in "Zz":
        shift = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        if shift >= 86400:
            raise ValueError(f"{text!r} has no such zone")
        clock += shift if zone[0] == "-" else -shift
    whole = float((date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY) * 86400 + clock)
    return whole + (int(fraction) / 10 ** len(fraction) if fraction else 0)
