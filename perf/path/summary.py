"""Medians over the rounds, and meshd's ratio to everybody else."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

Rounds = list[dict[str, Any]]
Results = dict[str, Rounds]

OURS = "meshd"


@dataclass(frozen=True)
class Figure:
    """One column: where it stands in a round, how it is shown, and whether more is better."""

    label: str
    path: tuple[str | int, ...]
    digits: int = 2
    more_is_better: bool = True


FIGURES = (
    Figure("TCP Gbit/s", ("tcp1", "gbit_s")),
    Figure("8 flows Gbit/s", ("tcp8", "gbit_s")),
    Figure("reverse Gbit/s", ("reverse", "gbit_s")),
    Figure("UDP 64 kpps", ("udp64", "kpps"), 1),
    Figure("UDP 512 kpps", ("udp512", "kpps"), 1),
    Figure("UDP 1200 kpps", ("udp1200", "kpps"), 1),
    Figure("sender CPU s/GB", ("tcp1", "cpu_s_per_gb", 0), 2, False),
    Figure("receiver CPU s/GB", ("tcp1", "cpu_s_per_gb", 1), 2, False),
    Figure("relay CPU s/GB", ("tcp1", "cpu_s_per_gb", 2), 2, False),
    Figure("sender CPU s/Mpkt (64)", ("udp64", "cpu_s_per_million", 0), 2, False),
    Figure("receiver CPU s/Mpkt (64)", ("udp64", "cpu_s_per_million", 1), 2, False),
    Figure("ping ms", ("ping", "avg_ms"), 3, False),
    Figure("ping loaded ms", ("ping_loaded", "avg_ms"), 2, False),
    Figure("idle CPU %", ("idle", "cpu_percent"), 2, False),
    Figure("PSS idle MB", ("idle", "pss_mb", 0), 1, False),
    Figure("PSS loaded MB", ("loaded_pss_mb", 0), 1, False),
)


def median(rounds: Rounds, figure: Figure) -> float | None:
    """Over the rounds that have the figure; None when none has."""
    values = [value for one in rounds if (value := _find(one, figure.path)) is not None]
    return statistics.median(values) if values else None


def _find(value: Any, path: tuple[str | int, ...]) -> float | None:
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return float(value) if value is not None else None


def table(results: Results) -> list[list[str]]:
    """A column for each program, a line for each figure that anybody has."""
    lines = [["", *results]]
    for figure in FIGURES:
        medians = [median(rounds, figure) for rounds in results.values()]
        if any(value is not None for value in medians):
            lines.append([figure.label, *("-" if m is None else f"{m:.{figure.digits}f}" for m in medians)])
    return lines


def ratios(results: Results) -> list[list[str]]:
    """How many times better meshd is than each of the others: above 1 is better, whatever the figure."""
    others = [name for name in results if name != OURS]
    if OURS not in results or not others:
        return []
    lines = [["meshd is better by", *others]]
    for figure in FIGURES:
        ours = median(results[OURS], figure)
        found = [better_by(ours, median(results[name], figure), figure) for name in others]
        if any(value is not None for value in found):
            lines.append([figure.label, *("-" if value is None else f"x {value:.2f}" for value in found)])
    return lines


def better_by(ours: float | None, theirs: float | None, figure: Figure) -> float | None:
    """Above 1 when ours is the better value; None when there is nothing to compare."""
    if not ours or not theirs:
        return None
    return ours / theirs if figure.more_is_better else theirs / ours


def aligned(lines: list[list[str]]) -> str:
    """As text, the first column left and the others right."""
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )
