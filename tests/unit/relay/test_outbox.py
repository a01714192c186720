"""What waits for a client of the relay."""

from __future__ import annotations

from meshd.relay.outbox import MAX_DATA_BYTES, MIN_DATA_FRAMES, Outbox
from meshd.wire.derp import MAX_PACKET


def test_outbox_keeps_as_many_large_packets_as_clients_send_in_one_go() -> None:
    """Probers of relays send 2 MB in frames of the largest size, and take a gap for a broken relay."""
    outbox = Outbox()
    assert [outbox.push_data(bytes(MAX_PACKET)) for _ in range(MIN_DATA_FRAMES)] == [0] * MIN_DATA_FRAMES
    assert outbox.push_data(bytes(MAX_PACKET)) == 1
    assert outbox.packets == MIN_DATA_FRAMES


def test_outbox_loses_the_oldest_small_packets() -> None:
    outbox = Outbox()
    number = MAX_DATA_BYTES // 1000 + 10
    dropped = sum(outbox.push_data(index.to_bytes(4, "big") * 250) for index in range(number))
    assert dropped == number - MAX_DATA_BYTES // 1000
    assert int.from_bytes(outbox.take()[:4], "big") == dropped
    assert outbox.packets == 0
    assert not outbox


def test_outbox_sends_control_first_and_disco_before_data() -> None:
    outbox = Outbox()
    outbox.push_data(b"3")
    outbox.push_disco(b"2")
    outbox.push_control(b"1")
    assert outbox.packets == 2
    assert outbox.take() == b"123"
