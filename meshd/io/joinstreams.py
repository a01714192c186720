"""Two connections made one: what comes from either goes to the other."""

from __future__ import annotations

import asyncio

_CHUNK = 1 << 16


async def join_streams(
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Copy both ways until both sides have ended; a side that ends is passed on as half-closed."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(near_reader, far_writer))
            group.create_task(_copy(far_reader, near_writer))
    except asyncio.CancelledError:
        near_writer.transport.abort()
        far_writer.transport.abort()
        raise


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def close_within(writer: asyncio.StreamWriter, seconds: float) -> None:
    """Close, and return when the connection is gone: an end that takes nothing would hold what is left, and a
    descriptor, for as long as it likes. When cancelled it is gone at once."""
    writer.close()
    try:
        async with asyncio.timeout(seconds):
            await writer.wait_closed()
    except (TimeoutError, OSError):
        pass  # it broke, or is cut off
    finally:
        writer.transport.abort()
