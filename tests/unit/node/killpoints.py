"""Killing a process at every step by which it changes files.

A forked child runs the work and ends without a word just before or just after its n-th call of a function that
changes the disk. Everything that reached the disk by then stays, as with SIGKILL.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

_STEPS = [
    *((os, name) for name in ("replace", "rename", "fsync", "unlink", "rmdir", "symlink", "pwrite", "ftruncate")),
    (tempfile, "mkstemp"),
]
_KILLED, _DONE, _FAILED = 77, 78, 79
_MOST_STEPS = 400


def kill_everywhere(prepare: Callable[[], None], work: Callable[[], None]) -> Iterator[int]:
    """Yield once for every point at which ``work`` was ended, with the number of the point; ``prepare`` runs in
    this process before each. The last one is the run that came to its end."""
    for point in range(_MOST_STEPS):
        prepare()
        child = os.fork()
        if child == 0:
            _run(work, point)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (_KILLED, _DONE), f"the work failed by itself (exit {code}) at point {point}"
        yield point
        if code == _DONE:
            return
    raise AssertionError("the work never came to its end")


def _run(work: Callable[[], None], point: int) -> None:
    left = [point]

    def step() -> None:
        if left[0] == 0:
            os._exit(_KILLED)
        left[0] -= 1

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            step()
            result = original(*arguments, **named)
            step()
            return result

        return call

    for module, name in _STEPS:
        setattr(module, name, wrapped(getattr(module, name)))
    try:
        work()
    except BaseException:
        os._exit(_FAILED)
    os._exit(_DONE)
