from __future__ import annotations

import pytest

from meshd.core.retryafter import parse_retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sun, 06 Nov 1994 08:48:00 GMT", -60.0),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("9" * 1000, 999999999999.0),
    ],
)
def test_retry_after_seconds_or_date(text: str, seconds: float | None) -> None:
    """LK-21."""
    assert parse_retry_after(text, 784111740.0) == seconds
