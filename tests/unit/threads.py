"""A system that has no room for another thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

_START = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
"""What `threading.Thread.start` calls, from Python 3.13 on and before."""


@contextlib.contextmanager
def no_room_for_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading, _START, refused)
        yield
