"""Times as Go's encoding/json writes them: RFC 3339, with year 1 standing for "none"."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

from meshd._fast.addresstext import utc_of, utc_text

ZERO_TIME = "0001-01-01T00:00:00Z"
_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_EPOCH_DAY, _LAST_DAY = date(1970, 1, 1).toordinal(), date.max.toordinal()


def format_time(wall: float | None) -> str:
    """RFC 3339 in UTC with up to nanoseconds; None gives the zero time."""
    if wall is None:
        return ZERO_TIME
    usual = utc_text(wall)
    if usual is not None:
        return usual
    seconds = int(wall // 1)
    nanos = 0 if wall == seconds else round((wall - seconds) * 1_000_000_000)
    if nanos == 1_000_000_000:
        seconds, nanos = seconds + 1, 0
    days, clock = divmod(seconds, 86400)
    minutes, second = divmod(clock, 60)
    text = f"{_day(days)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{text}{fraction}Z"


@lru_cache(maxsize=256)
def _day(days: int) -> str:
    # A zone can move a time out of the years that there are.
    return date.fromordinal(min(max(_EPOCH_DAY + days, 1), _LAST_DAY)).isoformat()


def parse_time(text: str) -> float | None:
    """Unix seconds, or None for the zero time. ValueError when the zone or the ``T`` is missing."""
    usual = utc_of(text)
    if usual is not None:
        return usual
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
