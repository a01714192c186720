"""The length limit of HTTP/2 frames, and the joining of DATA frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.io.http.h2frames import MAX_FRAME_BYTES, PREFACE_BYTES, DataMerger, FrameGuard


def _frame(length: int) -> bytes:
    return length.to_bytes(3, "big") + bytes(6 + length)


@given(st.lists(st.integers(0, 600), max_size=8), st.booleans(), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frame_guard_judges_the_same_however_the_bytes_are_cut(lengths, oversized, cuts):
    data = bytes(PREFACE_BYTES) + b"".join(_frame(length) for length in lengths)
    if oversized:
        data += (MAX_FRAME_BYTES + 1).to_bytes(3, "big") + bytes(6)
    guard, allowed, at, turn = FrameGuard(), True, 0, 0
    while at < len(data) and allowed:
        step = cuts[turn % len(cuts)]
        allowed = guard.allows(data[at : at + step])
        at += step
        turn += 1
    assert allowed is not oversized


def test_frame_guard_largest_frame_is_allowed():
    assert FrameGuard().allows(bytes(PREFACE_BYTES) + _frame(MAX_FRAME_BYTES) + _frame(0))


LIMIT = 64
Frame = tuple[int, int, int, bytes]  # type, flags, stream, body

frames = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 8]), st.sampled_from([0, 0, 0, 1, 8]), st.sampled_from([1, 1, 3]),
              st.binary(max_size=LIMIT)),
    max_size=12,
)  # fmt: skip


def _encode(frame: Frame) -> bytes:
    kind, flags, stream, body = frame
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _decode(data: bytes) -> list[Frame]:
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= end
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


def _in_runs(given: list[Frame]) -> list[Frame]:
    """Every run of plain DATA frames with something in them as one, however long."""
    joined: list[Frame] = []
    for frame in given:
        kind, flags, _, body = frame
        last = joined[-1] if joined else None
        if not kind and not flags and body and last is not None and last[:3] == frame[:3] and last[3]:
            joined[-1] = (*frame[:3], last[3] + body)
        else:
            joined.append(frame)
    return joined


@given(frames, st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_data_merger_changes_nothing_but_where_data_frames_end(given_frames, cuts):
    data = b"".join(map(_encode, given_frames))
    merger, came, at, turn = DataMerger(LIMIT), b"", 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        came += merger.feed(data[at : at + step])
        at += step
        turn += 1
        assert len(came) + 9 + 9 * len(given_frames) > min(at, len(data)), "more than a header was held back"
    made = _decode(came)
    assert _in_runs(made) == _in_runs(given_frames)
    assert all(len(body) <= LIMIT for *_, body in made)


def test_data_merger_joins_what_is_whole():
    data = b"".join(_encode((0, 0, 5, bytes([n]) * 10)) for n in range(8))
    assert len(_decode(DataMerger(1000).feed(data))) == 1
    assert [len(body) for *_, body in _decode(DataMerger(35).feed(data))] == [30, 30, 20]
    cut = DataMerger(1000)
    assert len(_decode(cut.feed(data[:-3]) + cut.feed(data[-3:]))) == 2


def test_data_merger_leaves_ends_padding_and_empty_frames_alone():
    empty = (0, 0, 1, b"")
    given_frames = [empty, (0, 0, 1, b"a"), empty, (0, 8, 1, b"\0b"), (0, 0, 3, b"c"), (0, 1, 3, b"d")]
    data = b"".join(map(_encode, given_frames))
    assert DataMerger(1000).feed(data) == data
