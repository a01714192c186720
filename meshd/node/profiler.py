"""Where this process spends its time and its memory, as profiles that common tools draw."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter, defaultdict
from types import FrameType, ModuleType
from typing import Any

from meshd.base.errors import MeshdError
from meshd.wire.pprof import Frame, Kind, Stack, encode_profile

INTERVAL_S = 0.001
"""Between two looks. A daemon works for a few milliseconds and rests again: with longer ones most of what it used would
be charged to the place where it rests."""

SWITCH_S = 0.0002
"""How soon a thread that works lets the one that looks have its turn, while a profile is taken."""

MAX_DEPTH = 200
"""Places of a stack that are kept, the innermost ones."""


_running = threading.Lock()


class CpuProfile:
    """Charges the CPU time that every thread uses to the place it is at. ``start``, later ``finish``.

    One at a time: ``start`` raises MeshdError "conflict" while another one runs, whose numbers both would spoil.
    Packet threads, which never run Python, show at the one place they were started from.
    """

    def __init__(self) -> None:
        self._used: Counter[Stack] = Counter()
        self._looks: Counter[Stack] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="profiler", daemon=True)
        self._begun = self._wall = 0.0
        self._former_switch_s = sys.getswitchinterval()

    def start(self) -> None:
        if not _running.acquire(blocking=False):
            raise MeshdError("a CPU profile is being taken already", code="conflict", hint="Try again when it is done.")
        try:
            self._thread.start()
        except BaseException:
            _running.release()
            raise
        self._begun, self._wall = time.monotonic(), time.time()
        self._former_switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)

    def finish(self) -> bytes:
        """The profile; it ends here."""
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(self._former_switch_s)
        _running.release()
        samples = [(stack, (self._looks[stack], used)) for stack, used in self._used.items()]
        cpu = Kind("cpu", "nanoseconds")
        return encode_profile(
            (Kind("samples", "count"), cpu),
            samples,
            wall=self._wall,
            duration_s=time.monotonic() - self._begun,
            period=(cpu, int(INTERVAL_S * 1e9)),
        )

    def _work(self) -> None:
        before = self._clocks()
        while not self._stop.wait(INTERVAL_S):
            now = self._clocks()
            frames = sys._current_frames()
            for ident, used in now.items():
                spent = used - before.get(ident, used)
                if spent > 0 and ident in frames:
                    stack = _stack(frames[ident])
                    self._used[stack] += spent
                    self._looks[stack] += 1
            before = now

    def _clocks(self) -> dict[int, int]:
        """CPU nanoseconds of every thread but this one."""
        clocks = {}
        for thread in threading.enumerate():
            if thread.ident is not None and thread is not self._thread:
                try:
                    clocks[thread.ident] = time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))
                except OSError:
                    continue  # it has ended meanwhile
        return clocks


def _stack(frame: FrameType | None) -> Stack:
    found: list[Frame] = []
    while frame is not None and len(found) < MAX_DEPTH:
        code = frame.f_code
        found.append(Frame(code.co_qualname, code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


def heap_profile() -> bytes:
    """The objects that are alive, by type: how many, and their own bytes. No contents.

    Containers and instances only: texts and numbers are what they hold. Objects that were exempt from collection when
    the daemon began are found through those that refer to them.
    """
    counts: Counter[type] = Counter()
    sizes: dict[type, int] = defaultdict(int)
    waiting: list[object] = [sys.modules, *gc.get_objects()]
    seen = {id(waiting), id(counts), id(sizes)}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kind = type(thing)
        counts[kind] += 1
        sizes[kind] += sys.getsizeof(thing, 0)
        waiting.extend(referent for referent in _referents(thing) if gc.is_tracked(referent))
    samples = [
        ((Frame(f"{kind.__module__}.{kind.__qualname__}"),), (count, sizes[kind])) for kind, count in counts.items()
    ]
    return encode_profile((Kind("inuse_objects", "count"), Kind("inuse_space", "bytes")), samples, wall=time.time())


def _referents(thing: object) -> list[Any]:
    """What it refers to. Modules are taken by their names alone: the module of asyncio's C part shows freed objects,
    too, before Python 3.12.6, and whoever touches one of these has it freed twice (CPython issue 122695)."""
    return [vars(thing)] if isinstance(thing, ModuleType) else gc.get_referents(thing)
