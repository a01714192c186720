"""Times as control writes them, against ``datetime``."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.gotime import format_time, parse_time


@given(st.datetimes(min_value=datetime(2, 1, 1), timezones=st.just(UTC)))
def test_format_time_agrees_with_datetime(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    assert format_time(seconds) == whole.isoformat().replace("+00:00", "Z")
    assert parse_time(format_time(seconds)) == seconds
    shown = parse_time(moment.isoformat().replace("+00:00", "+05:30"))
    assert shown is not None
    assert abs(shown - (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() + 19800) < 1e-4


def test_format_time_beyond_the_years_is_still_a_time() -> None:
    beyond = parse_time("9999-12-31T23:59:59-23:59")
    assert format_time(beyond).startswith("9999-12-31T")
