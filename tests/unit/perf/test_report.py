"""Medians, ratios, plots and the report made of them."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from perf.path import summary
from perf.report import svg
from perf.report.__main__ import write


def turn(gbit_s, **extra):
    return {"load_before": 0.5, "tcp1": {"gbit_s": gbit_s, "cpu_s_per_gb": [1.0, 2.0]}, **extra}


RESULTS = {"meshd": [turn(4.0), turn(2.0), turn(3.0)], "other": [turn(1.5)]}
TCP = summary.FIGURES[0]
LESS = next(figure for figure in summary.FIGURES if figure.label == "ping ms")


def test_median_takes_the_rounds_that_have_the_figure():
    assert summary.median(RESULTS["meshd"], TCP) == 3.0
    assert summary.median([*RESULTS["other"], {"load_before": 1.0}], TCP) == 1.5
    assert summary.median(RESULTS["other"], LESS) is None


def test_ratios_above_one_is_better_whatever_the_figure():
    assert summary.better_by(3.0, 1.5, TCP) == 2.0
    assert summary.better_by(3.0, 1.5, LESS) == 0.5
    assert summary.better_by(3.0, None, TCP) is None
    assert summary.ratios(RESULTS)[1] == ["TCP Gbit/s", "x 2.00"]
    assert summary.ratios({"other": RESULTS["other"]}) == []


def test_table_leaves_out_what_nobody_measured():
    labels = [line[0] for line in summary.table(RESULTS)]
    assert "TCP Gbit/s" in labels
    assert "UDP 64 kpps" not in labels


@pytest.mark.parametrize(
    "plot",
    [
        svg.bars("a <b>", [("x & y", 1.5), ("z", 0.0)], "ms"),
        svg.bars("nothing", [], "ms"),
        svg.lines("l", [10, 1000], {"one": [0.1, 2.0], "two": [0.0, 3.0]}, "ms"),
        svg.lines("one size", [10], {"one": [0.1]}, "ms"),
        svg.lines("nothing", [10], {"one": [0.0]}, "ms"),
    ],
)
def test_plots_are_well_formed(plot):
    assert ElementTree.fromstring(plot).tag.endswith("svg")


def test_write_path_report_names_its_plots(tmp_path):
    report = {"machine": "m", "relayed": False, "seconds": 2, "results": RESULTS}
    report["failures"] = [{"round": 1, "name": "other", "reason": "gone\nlog"}]
    (tmp_path / "p.json").write_text(json.dumps(report))
    text = write([tmp_path / "p.json"], tmp_path).read_text()
    assert "| TCP Gbit/s | 3.00 | 1.50 |" in text
    assert "round 1, other: gone" in text
    assert (tmp_path / "path-direct-tcp.svg").exists()


def test_write_foreign_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json"):
        write([tmp_path / "x.json"], tmp_path)


def test_report_of_a_scale_run_without_figures_has_the_other_sections(tmp_path):
    empty, other = tmp_path / "scale.json", tmp_path / "instructions.json"
    empty.write_text('{"sizes": []}')
    other.write_text('{"machine": "m", "counts": {"checksum": 1.0}}')
    text = write([empty, other], tmp_path).read_text()
    assert "No size could be measured." in text
    assert "| checksum | 1.0 | - |" in text


@pytest.mark.parametrize("damaged", ['{"sizes": [{}]}', '{"relayed": true}', "[]", "3"])
def test_report_of_a_damaged_file_names_it(tmp_path, damaged):
    (tmp_path / "x.json").write_text(damaged)
    with pytest.raises(ValueError, match=r"x\.json: "):
        write([tmp_path / "x.json"], tmp_path)
