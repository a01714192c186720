"""Reading callgrind's output, and what counts as a regression. The counting itself is a step of CI."""

from __future__ import annotations

import pytest

from perf.instructions import baseline, callgrind


def test_read_named_dump_gives_name_and_total(tmp_path):
    path = tmp_path / "out.1"
    path.write_text("version: 1\ndesc: Trigger: Client Request: seal 64:16\nevents: Ir\nsummary: 4711\n")
    assert callgrind.read(path) == ("seal 64:16", 4711)


def test_read_dump_at_exit_is_ignored(tmp_path):
    path = tmp_path / "out"
    path.write_text("version: 1\ndesc: Trigger: Program termination\nsummary: 1\n")
    assert callgrind.read(path) is None


def test_differences_two_loop_counts_cancel_the_call():
    assert callgrind.differences([("a: b:10", 1100), None, ("a: b:30", 1300)]) == {"a: b": 10.0}


def test_differences_case_counted_once_is_an_error():
    with pytest.raises(RuntimeError, match="only once"):
        callgrind.differences([("a:10", 1100)])


def test_compare_growth_within_tolerance_is_no_news():
    assert baseline.compare({"a": 100.0}, {"a": 105.0}) == ([], [])


def test_compare_growth_beyond_tolerance_and_lost_cases_are_worse():
    worse, notes = baseline.compare({"a": 100.0, "gone": 1.0}, {"a": 105.2, "fresh": 3.0})
    assert [line.split(":")[0] for line in worse] == ["a", "gone"]
    assert [line.split(":")[0] for line in notes] == ["fresh"]


def test_compare_gain_is_a_note():
    worse, notes = baseline.compare({"a": 100.0}, {"a": 90.0})
    assert not worse
    assert "record" in notes[0]


def test_store_keeps_other_machines(tmp_path):
    path = tmp_path / "baseline.json"
    assert baseline.stored("m", path) is None
    baseline.store("m", {"a": 1.0}, path)
    baseline.store("n", {"a": 2.0}, path)
    assert baseline.stored("m", path) == {"a": 1.0}
    assert baseline.stored("n", path) == {"a": 2.0}
