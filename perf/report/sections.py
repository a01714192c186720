"""The parts of the report, each from the JSON of one measuring command: Markdown text and plots by file name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perf.instructions import baseline
from perf.path import summary
from perf.report import svg
from perf.scale.__main__ import rows

_PLOTTED = {
    "tcp": ("One TCP flow", "TCP Gbit/s", "Gbit/s"),
    "udp64": ("UDP of 64 bytes, at most 1 % lost", "UDP 64 kpps", "thousand packets a second"),
    "udp1200": ("UDP of 1200 bytes, at most 1 % lost", "UDP 1200 kpps", "thousand packets a second"),
    "cpu": ("Sending one TCP flow", "sender CPU s/GB", "CPU seconds per GB, less is better"),
    "memory": ("After load", "PSS loaded MB", "MB of PSS, less is better"),
}


@dataclass
class Section:
    """Markdown, and the plots it shows."""

    text: str
    plots: dict[str, str] = field(default_factory=dict)


def markdown_table(lines: list[list[str]]) -> str:
    """The first line is the head; numbers are right-aligned."""
    head, *rest = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rest])


def path(report: dict[str, Any]) -> Section:
    """Of ``perf.path``."""
    kind = "relayed" if report["relayed"] else "direct"
    results: summary.Results = report["results"]
    loads = [turn["load_before"] for rounds in results.values() for turn in rounds]
    rounds = max(map(len, results.values()), default=0)
    parts = [
        f"## Path, {kind}",
        f"{report['machine']}. Medians of {rounds} interleaved rounds, TCP runs of {report['seconds']} s, MTU 1280. "
        f"Load of the machine before the turns: {min(loads, default=0):.1f} to {max(loads, default=0):.1f}; "
        "where it is more than the daemons of the turn before leave behind, only the ratios mean something.",
        markdown_table(summary.table(results)),
    ]
    ratios = summary.ratios(results)
    if ratios:
        parts += ["How many times better meshd is (above 1 is better, whatever the figure):", markdown_table(ratios)]
    plots: dict[str, str] = {}
    for name, (title, label, unit) in _PLOTTED.items():
        figure = next(f for f in summary.FIGURES if f.label == label)
        medians = [(who, summary.median(turns, figure)) for who, turns in results.items()]
        values = [(who, round(value, figure.digits)) for who, value in medians if value is not None]
        if values:
            file = f"path-{kind}-{name}.svg"
            plots[file] = svg.bars(title, values, unit)
            parts.append(f"![{title}]({file})")
    failures = [f"- round {f['round']}, {f['name']}: {f['reason'].splitlines()[0]}" for f in report["failures"]]
    if failures:
        parts += ["What failed:", "\n".join(failures)]
    return Section("\n\n".join(parts), plots)


def scale(report: dict[str, Any]) -> Section:
    """Of ``perf.scale``."""
    sizes = report["sizes"]
    if not sizes:
        return Section("## Size of the network\n\nNo size could be measured.")
    xs = [one["admitted"] for one in sizes]
    deltas = {kind: [one["deltas"][kind]["median_ms"] for one in sizes] for kind in sizes[0]["deltas"]}
    packet = {
        "longest prefix": [one["lookup_all_ns"] for one in sizes],
        "filter, data": [one["filter_data_ns"] for one in sizes],
        "filter, SYN": [one["filter_syn_ns"] for one in sizes],
    }
    plots = {
        "scale-deltas.svg": svg.lines("One change, by number of peers", xs, deltas, "CPU ms"),
        "scale-packet.svg": svg.lines("One packet, by number of peers", xs, packet, "ns"),
        "scale-load.svg": svg.lines("Loading", xs, {"load": [one["load_cpu_s"] for one in sizes]}, "CPU s"),
    }
    text = [
        "## Size of the network",
        "From map frame to the data plane's snapshot, in one process without a network; processor time.",
        markdown_table(rows(sizes)),
        *(f"![{file.removesuffix('.svg')}]({file})" for file in plots),
    ]
    return Section("\n\n".join(text), plots)


def instructions(report: dict[str, Any]) -> Section:
    """Of ``perf.instructions``."""
    before = baseline.stored(report["machine"]) or {}
    lines = [["work", "instructions", "baseline"]]
    for name, count in report["counts"].items():
        old = before.get(name)
        lines.append([name, f"{count:,.1f}", f"{old:,.1f} ({count / old - 1:+.1%})" if old else "-"])
    text = f"## Instructions\n\nCounted by callgrind on {report['machine']}.\n\n{markdown_table(lines)}"
    return Section(text)


def section(report: dict[str, Any]) -> Section:
    """The section for a report, whichever command wrote it. ValueError: none of them did."""
    if "relayed" in report:
        return path(report)
    if "sizes" in report:
        return scale(report)
    if "counts" in report:
        return instructions(report)
    raise ValueError("it was written by none of perf.path, perf.scale, perf.instructions")
