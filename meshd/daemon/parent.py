"""Ending with the process that started us: it holds the other end of a pipe (``TS_PARENT_DEATH_FD``)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from meshd.base.errors import MeshdError

VARIABLE = "TS_PARENT_DEATH_FD"


def parent_pipe(environment: Mapping[str, str]) -> int | None:
    """The descriptor to watch; None for none, as for the standard ones. Raises MeshdError "usage"."""
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise MeshdError(f'invalid value "{text}" for the environment variable {VARIABLE}: not a number', code="usage")
    return int(text) if int(text) > 2 else None


def watch_parent(loop: asyncio.AbstractEventLoop, descriptor: int, gone: Callable[[], None]) -> None:
    """Call ``gone`` once when the other end is closed; what is written to it is ignored. Raises MeshdError "usage"."""

    def readable() -> None:
        try:
            if os.read(descriptor, 4096):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        loop.remove_reader(descriptor)
        gone()

    try:
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, readable)
    except OSError as error:
        raise MeshdError(
            f"{VARIABLE}={descriptor} is no open pipe: {error.strerror or error}",
            code="usage",
            hint="The process that starts meshd passes the reading end of a pipe on, or leaves the variable unset.",
        ) from None
