from __future__ import annotations

import pytest
import zstandard

from meshd.base.errors import WireError
from meshd.wire.mapframe import KEEP_ALIVE_JSON, MapFrameReader, encode_map_frame
from meshd.wire.zstd import compress, decompress


def test_map_frame_vectors(vectors):
    frames = vectors("frames")
    plain = bytes.fromhex(frames["map_frame_keepalive_plain"])
    assert encode_map_frame(KEEP_ALIVE_JSON, zstd=False) == plain
    assert MapFrameReader(zstd=False).feed(plain) == [KEEP_ALIVE_JSON]
    packed = bytes.fromhex(frames["map_frame_keepalive_zstd_example"])
    assert MapFrameReader(zstd=True).feed(packed) == [KEEP_ALIVE_JSON]


@pytest.mark.parametrize("zstd", [False, True])
def test_map_frame_bytewise_round_trip(zstd):
    messages = [KEEP_ALIVE_JSON, b"{}", b'{"Domain":"' + b"x" * 100_000 + b'"}']
    stream = b"".join(encode_map_frame(message, zstd) for message in messages)
    reader = MapFrameReader(zstd)
    cut = 777
    found = [message for i in range(0, len(stream), cut) for message in reader.feed(stream[i : i + cut])]
    assert found == messages


@pytest.mark.parametrize("header", ["00000000", "ffffffff", "01000008"])
def test_map_frame_length_out_of_range_rejected(header):
    with pytest.raises(WireError, match="length"):
        MapFrameReader(zstd=False).feed(bytes.fromhex(header))


def test_map_frame_messages_are_opened_one_at_a_time():
    """What follows a good message in the same read, a bomb for instance, is not touched before it was dealt with."""
    reader = MapFrameReader(zstd=True)
    messages = reader.messages(encode_map_frame(KEEP_ALIVE_JSON, zstd=True) + b"\x02\x00\x00\x00{}")
    assert next(messages) == KEEP_ALIVE_JSON
    with pytest.raises(WireError):
        next(messages)


def test_zstd_without_content_size_accepted():
    chunker = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    data = chunker.compress(b"a" * 1000) + chunker.flush()
    assert decompress(data, 1000) == b"a" * 1000


def test_zstd_several_frames_concatenated():
    assert decompress(compress(b'{"Domain":') + compress(b'"x"}'), 100) == b'{"Domain":"x"}'


def test_zstd_bomb_stops_at_the_limit():
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 27))
    assert len(bomb) < 100_000
    with pytest.raises(WireError, match="expands beyond"):
        decompress(bomb, 1 << 20)
    assert len(decompress(compress(bytes(1000)), 1000)) == 1000
    with pytest.raises(WireError):
        decompress(compress(bytes(1001)), 1000)


def test_zstd_garbage_rejected():
    with pytest.raises(WireError, match="malformed"):
        decompress(b"not zstd at all", 1000)
    with pytest.raises(WireError):
        MapFrameReader(zstd=True).feed(b"\x02\x00\x00\x00{}")


@pytest.mark.parametrize("keep", [5, 12, 20, -1])
def test_zstd_cut_short_rejected(keep):
    with pytest.raises(WireError):
        decompress(compress(bytes(range(256)) * 8)[:keep], 4096)
