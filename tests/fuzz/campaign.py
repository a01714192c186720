"""Long runs of the fuzz targets, in one process, turn by turn.

    python -m tests.fuzz.campaign --executions 10000000 [TARGET...]

Each target keeps a folder below ``--folder``: ``corpus.hex`` (inputs that reached something new), ``state.json``
(executions so far) and ``findings`` (inputs that raised, made smaller, with the traceback). A campaign that was
interrupted goes on from there. Exit code 1: there are findings.
"""

from __future__ import annotations

import argparse
import gc
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz import every_target, native
from tests.fuzz.lines import LineTracer
from tests.fuzz.mutation import Mutator
from tests.fuzz.native import NativeCampaign
from tests.fuzz.shrink import shrink
from tests.fuzz.state import State, place_of
from tests.fuzz.target import TARGETS, Run, Target
from tests.fuzz.wholes import WHOLES, WholeCampaign

BATCHES = ((10_000, 8), (1_000_000, 64), (1 << 62, 256))
"""Until so many executions, one in so many is traced: what is new becomes rare, and tracing is slow."""
BATCH_LIMIT_S = 20.0
"""Processor time of one batch; parsers take microseconds, so what takes longer hangs."""
CORPUS_LIMIT = 3000


class Hang(BaseException):
    """One batch took too long. No target can catch it by accident."""


def outcome(run: Run, data: bytes) -> str:
    """`place_of` what the input raises; empty when it passes."""
    try:
        run(data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return place_of(error)
    return ""


class Campaign:
    """One target, its corpus and its count."""

    def __init__(self, target: Target, folder: Path, seed: int) -> None:
        self.target = target
        self.state = State(target.name, folder)
        self._seed = seed
        self._tracer = LineTracer()
        self._mutator: Mutator | None = None
        self._corpus_file = self.state.folder / "corpus.hex"

    @property
    def corpus(self) -> int:
        """How many inputs new ones are made from."""
        return len(self._mutator.seeds) if self._mutator else 0

    def start(self) -> Mutator:
        """Take the target's own seeds, and of what else is known what reaches something that nothing before did."""
        random = Random(f"{self._seed} {self.target.name} {self.state.executions}")
        mutator = self._mutator = Mutator(
            random, text=self.target.text, limit=self.target.limit, dictionary=self.target.dictionary
        )
        own, known = self.target.known()
        if self._corpus_file.exists():
            known += [bytes.fromhex(line) for line in self._corpus_file.read_text().split("\n")]
        own = list(dict.fromkeys(data[: self.target.limit] for data in own))
        for data in own:
            self._traced(data)
            mutator.add(data)
        for data in sorted(set(known) - set(own), key=len):
            if self._traced(data):
                mutator.add(data)
        if not mutator.seeds:
            mutator.add(b"")
        return mutator

    def turn(self, seconds: float, limit: int) -> None:
        """Run for so much processor time, or until ``limit`` executions are reached in all."""
        mutator, state = self._mutator or self.start(), self.state
        run, new, data = self.target.run, mutator.next, b""
        began = time.process_time()
        while state.executions < limit and time.process_time() - began < seconds:
            batch = next(size for until, size in BATCHES if state.executions < until)
            batch = min(batch, limit - state.executions)
            signal.setitimer(signal.ITIMER_VIRTUAL, BATCH_LIMIT_S)
            done = 0
            try:
                while done < batch - 1:
                    data = new()
                    done += 1
                    run(data)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self._found(data, error)
            else:
                if self._traced(data := new()) and len(mutator.seeds) < CORPUS_LIMIT:
                    mutator.add(data)
                done += 1
            state.executions += done
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        state.seconds += time.process_time() - began
        state.memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state.save()
        self._corpus_file.write_text("\n".join(seed.data.hex() for seed in mutator.seeds))

    def _traced(self, data: bytes) -> bool:
        signal.setitimer(signal.ITIMER_VIRTUAL, BATCH_LIMIT_S)
        try:
            return self._tracer.run(self.target.run, data)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._found(data, error)
            return False

    def _found(self, data: bytes, error: BaseException) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        place = place_of(error)
        if self.state.is_news(place):
            if not isinstance(error, Hang):
                data = shrink(data, lambda smaller: outcome(self.target.run, smaller) == place)
            self.state.keep(place, data, "".join(traceback.format_exception(error)))


def campaign_of(name: str, folder: Path, seed: int) -> Campaign | NativeCampaign | WholeCampaign:
    """Of a target in Python, a loop in C, or a whole part of a node."""
    if name in WHOLES:
        return WholeCampaign(name, folder, seed)
    return NativeCampaign(name, folder, seed) if name in native.NAMES else Campaign(TARGETS[name], folder, seed)


def run(names: list[str], executions: int, seed: int, folder: Path, turn_s: float) -> int:
    """All targets to their count, a turn each; the number of findings."""
    campaigns = [campaign_of(name, folder, seed) for name in names]

    def hang(number: int, frame: FrameType | None) -> None:
        raise Hang(f"a batch took more than {BATCH_LIMIT_S:.0f} s of processor time")

    before = signal.signal(signal.SIGVTALRM, hang)
    try:
        while waiting := [c for c in campaigns if c.state.executions < executions]:
            for campaign in waiting:
                campaign.turn(turn_s, executions)
                print(campaign.state.line(campaign.corpus), flush=True)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    print(*(campaign.state.line(campaign.corpus) for campaign in campaigns), sep="\n")
    return sum(sum(campaign.state.findings.values()) for campaign in campaigns)


def main(arguments: list[str] | None = None) -> int:
    every_target.load()
    every = sorted((*TARGETS, *native.NAMES, *WHOLES))
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description="Long runs of fuzz targets.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all, or of: {' '.join(every)}")
    parser.add_argument("--executions", type=int, default=1_000_000, help="of each target, earlier runs included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--turn", type=float, default=20.0, metavar="SECONDS", help="before the next target's turn")
    options = parser.parse_args(arguments)
    unknown = set(options.targets) - set(every)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {' '.join(every)}")
    gc.freeze()
    names = options.targets or every
    return 1 if run(names, options.executions, options.seed, options.folder, options.turn) else 0


if __name__ == "__main__":
    sys.exit(main())
