"""zstd with a limit on what comes out. The library is loaded at first use."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from meshd.base.errors import WireError
from meshd.wire.cursor import Cursor

if TYPE_CHECKING:
    import zstandard

_CHUNK: Final = 1 << 16
_MAX_WINDOW: Final = 1 << 26
"""The decoder allocates the window a frame asks for; ordinary encoders ask for 8 MiB or less."""

_FRAME_MAGIC: Final = 0xFD2FB528
_SKIPPABLE_MAGIC: Final = 0x184D2A50
_BLOCK_RLE: Final = 1


@lru_cache(maxsize=1)
def _compressor() -> zstandard.ZstdCompressor:
    import zstandard

    return zstandard.ZstdCompressor(level=1)


def compress(data: bytes) -> bytes:
    """One complete frame."""
    return _compressor().compress(data)


def decompress(data: bytes, limit: int) -> bytes:
    """Content of all frames in `data`, with or without content size.

    Raises `WireError` beyond `limit` bytes, and for data that is malformed or cut short.
    """
    whole = _decompress_one(data, limit)
    if whole is not None:
        return whole
    import zstandard

    _check_whole(data)
    pieces: list[bytes] = []
    total = 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        with decompressor.stream_reader(data, read_across_frames=True) as reader:
            while piece := reader.read(min(_CHUNK, limit + 1 - total)):
                total += len(piece)
                if total > limit:
                    raise WireError(f"compressed message expands beyond {limit} bytes")
                pieces.append(piece)
    except zstandard.ZstdError as error:
        raise WireError(f"zstd data is malformed: {error}") from error
    return b"".join(pieces)


@lru_cache(maxsize=1)
def _decompressor() -> tuple[Callable[[bytes], int], zstandard.ZstdDecompressor, type[Exception]]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    return zstandard.frame_content_size, decompressor, zstandard.ZstdError


def _decompress_one(data: bytes, limit: int) -> bytes | None:
    """The usual message, a single frame that says how long it is, in one call; None for anything else."""
    content_size, decompressor, malformed = _decompressor()
    try:
        if not 0 < content_size(data) <= limit:
            return None
        return decompressor.decompress(data, allow_extra_data=False)
    except malformed:
        return None  # the long way finds out what is wrong


def _check_whole(data: bytes) -> None:
    """Walk the frames (RFC 8878 3.1): the library's reader takes a cut-off frame for the end of the data."""
    cursor = Cursor(data)
    while cursor.remaining:
        magic = cursor.u32le()
        if magic & 0xFFFFFFF0 == _SKIPPABLE_MAGIC:
            cursor.take(cursor.u32le())
        elif magic == _FRAME_MAGIC:
            _skip_frame(cursor)
        else:
            raise WireError("zstd data is malformed: not a frame", offset=cursor.offset - 4)


def _skip_frame(cursor: Cursor) -> None:
    descriptor = cursor.u8()
    single_segment = descriptor & 0x20
    window_size = 0 if single_segment else 1
    dictionary_size = (0, 1, 2, 4)[descriptor & 3]
    content_size = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    cursor.take(window_size + dictionary_size + content_size)
    last = 0
    while not last:
        header = int.from_bytes(cursor.take(3), "little")
        last = header & 1
        cursor.take(1 if header >> 1 & 3 == _BLOCK_RLE else header >> 3)
    if descriptor & 4:
        cursor.take(4)
