"""The turns of whole data planes (`tests.fuzz.fuzz_plane`) in a campaign."""

from __future__ import annotations

import resource
import time
import traceback
from pathlib import Path

from tests.fuzz.fuzz_plane import PlaneFuzzer
from tests.fuzz.state import State, place_of

NAME = "plane"
LIFE = 50_000
"""Executions of one plane: what a crash or a stall is narrowed down to, by the seed that was written down."""


class PlaneCampaign:
    """One plane after the other; see `tests.fuzz.campaign`."""

    corpus = 0

    def __init__(self, folder: Path, seed: int) -> None:
        self.state = State(NAME, folder)
        self._seed = seed

    def turn(self, seconds: float, limit: int) -> None:
        state = self.state
        began = time.process_time()
        while state.executions < limit and time.process_time() - began < seconds:
            seed = self._seed + state.executions
            state.save({"seed": seed})
            fuzzer = PlaneFuzzer(seed)
            try:
                while fuzzer.executions < min(LIFE, limit - state.executions):
                    fuzzer.turn()
            except Exception as error:
                state.found(place_of(error), str(seed).encode(), "".join(traceback.format_exception(error)))
                fuzzer.executions += 1  # never the same plane again
            finally:
                fuzzer.close()
            state.executions += fuzzer.executions
        state.seconds += time.process_time() - began
        state.memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state.save()
