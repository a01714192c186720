"""A short turn of every fuzz target: on pure noise, and on what it starts from, changed a little."""

from __future__ import annotations

import contextlib
import json
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.wire import control
from meshd.wire.control import codec
from tests.fuzz import campaign, every_target
from tests.fuzz.mutation import Mutator
from tests.fuzz.target import TARGETS

every_target.load()
NAMES = sorted(TARGETS)
JSON_TARGETS = ["map_response", "map_request", "register_request", "register_response"]
ROUNDS = settings(max_examples=60)
TURN = 400


@pytest.mark.parametrize("name", NAMES)
def test_target_on_noise(name):
    @ROUNDS
    @example(b"")
    @given(st.binary(max_size=200))
    def run(data: bytes) -> None:
        TARGETS[name].run(data)

    run()


@pytest.mark.parametrize("name", NAMES)
def test_target_on_its_seeds_and_changes_of_them(name):
    """What earlier campaigns found is among the seeds."""
    target = TARGETS[name]
    mutator = Mutator(Random(1), text=target.text, limit=target.limit, dictionary=target.dictionary)
    own, others = target.known()
    for data in (*own, *others[:100]):
        target.run(data)
        mutator.add(data)
    for _ in range(TURN):
        target.run(mutator.next())


FIELDS = sorted(codec._shape(control.MapResponse)._root.fields) + sorted(codec._shape(control.Node)._root.fields)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["100.64.0.1/32", "1.2.3.4:5", "nodekey:" + "0" * 64, "2024-02-29T00:00:00Z", "AQI="])
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, *map(str.lower, FIELDS), "1", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", [*JSON_TARGETS, "map_response_loosely", "derp_info"])
def test_target_on_documents(name):
    @settings(max_examples=150)
    @given(st.dictionaries(st.sampled_from(FIELDS), DOCUMENTS, max_size=6))
    def run(document: dict[str, Any]) -> None:
        TARGETS[name].run(json.dumps(document).encode())

    run()


@pytest.mark.parametrize("name", [*JSON_TARGETS, "map_response_loosely"])
def test_target_on_recorded_messages_with_one_change(name, vectors):
    messages = [message["map"] for message in vectors("control_recorded")["messages"] if "map" in message]

    @ROUNDS
    @given(st.sampled_from(messages), st.integers(0, 1 << 30), st.sampled_from(["null", "5.0", '"5"', "[]", "{}"]))
    def run(message: dict[str, Any], position: int, value: str) -> None:
        text = json.dumps(message)
        colons = [at for at, char in enumerate(text) if char == ":" and text[at + 1] == " "]
        at = colons[position % len(colons)] + 2
        depth_end = json.JSONDecoder().raw_decode(text, at)[1]
        TARGETS[name].run((text[:at] + value + text[depth_end:]).encode())

    run()


def test_campaign_keeps_a_finding_and_goes_on_where_it_was(tmp_path, monkeypatch):
    """The loop itself: it finds a planted fault, makes the input small, counts, and resumes."""

    def faulty(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            if data.index(b"M") > 2:
                raise KeyError(data)

    planted = TARGETS["stun"].__class__("planted", faulty, lambda: [b"MMMMMMMM", b"abc"], False, 60, ())
    monkeypatch.setitem(TARGETS, "planted", planted)
    assert campaign.run(["planted"], 3000, 1, tmp_path, 60.0) > 0
    kept = sorted((tmp_path / "planted" / "findings").glob("*.bin"))
    assert [path.read_bytes() for path in kept] == [b"000M"]
    state = json.loads((tmp_path / "planted" / "state.json").read_text())
    assert state["executions"] == 3000
    assert sum(state["findings"].values()) > 3
    assert campaign.run(["planted"], 3000, 1, tmp_path, 60.0) == sum(state["findings"].values())
    assert json.loads((tmp_path / "planted" / "state.json").read_text())["executions"] == 3000
