"""The turns of whole parts of a node in a campaign: the data plane, and what decides about its packets."""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.fuzz.fuzz_engine import EngineFuzzer
from tests.fuzz.fuzz_plane import PlaneFuzzer
from tests.fuzz.state import State, place_of

LIFE = 50_000
"""Executions of one of them: what a crash or a stall is narrowed down to, by the seed that was written down."""


class Whole(Protocol):
    """``turn`` sends a batch and adds to ``executions``; everything comes from the seed it was made with."""

    executions: int

    def turn(self) -> None: ...

    def close(self) -> None: ...


WHOLES: dict[str, Callable[[int], Whole]] = {"engine": EngineFuzzer, "plane": PlaneFuzzer}


class WholeCampaign:
    """One after the other; see `tests.fuzz.campaign`."""

    corpus = 0

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.state = State(name, folder)
        self._make = WHOLES[name]
        self._seed = seed

    def turn(self, seconds: float, limit: int) -> None:
        state = self.state
        began = time.process_time()
        while state.executions < limit and time.process_time() - began < seconds:
            seed = self._seed + state.executions
            state.save({"seed": seed})
            fuzzer = self._make(seed)
            try:
                while fuzzer.executions < min(LIFE, limit - state.executions):
                    fuzzer.turn()
            except Exception as error:
                state.found(place_of(error), str(seed).encode(), "".join(traceback.format_exception(error)))
                fuzzer.executions += 1  # never the same seed again
            finally:
                fuzzer.close()
            state.executions += fuzzer.executions
        state.seconds += time.process_time() - began
        state.memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state.save()
