"""zstd with a limit on what comes out. The library is loaded at first use."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from meshd.base.errors import WireError

if TYPE_CHECKING:
    import zstandard

_CHUNK: Final = 1 << 16
_MAX_WINDOW: Final = 1 << 27
"""128 MiB is what the format's reference tool accepts by default; a frame asking for more is refused."""


@lru_cache(maxsize=1)
def _compressor() -> zstandard.ZstdCompressor:
    import zstandard

    return zstandard.ZstdCompressor(level=1)


def compress(data: bytes) -> bytes:
    """One complete frame."""
    return _compressor().compress(data)


def decompress(data: bytes, limit: int) -> bytes:
    """Content of all frames in `data`, with or without content size; `WireError` beyond `limit` bytes."""
    import zstandard

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
