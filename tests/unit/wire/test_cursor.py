from __future__ import annotations

import pytest

from meshd.base.errors import WireError
from meshd.wire.cursor import Cursor


def test_cursor_reads_integers_in_both_byte_orders():
    cursor = Cursor(bytes(range(1, 12)))
    assert cursor.u8() == 0x01
    assert cursor.u16be() == 0x0203
    assert cursor.u32be() == 0x04050607
    assert cursor.u32le() == 0x0B0A0908
    cursor.end()


def test_cursor_past_the_end_names_the_offset():
    cursor = Cursor(b"abc")
    cursor.take(2)
    with pytest.raises(WireError) as caught:
        cursor.u16be()
    assert caught.value.offset == 2
    assert cursor.remaining == 1, "a failed read consumes nothing"


def test_cursor_negative_length_rejected():
    with pytest.raises(WireError):
        Cursor(b"abc").take(-1)


def test_cursor_end_with_bytes_left_rejected():
    cursor = Cursor(memoryview(b"ab"))
    cursor.u8()
    with pytest.raises(WireError, match="1 unexpected bytes"):
        cursor.end()
    assert cursor.rest() == b"b"
    assert cursor.rest() == b""
    cursor.end()
