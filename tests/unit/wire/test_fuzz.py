"""A short turn of every fuzz target, on pure noise, on damaged vectors and on JSON of about the right shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.wire import control
from meshd.wire.control import codec
from tests.fuzz.fuzz_wire import TARGETS

JSON_TARGETS = ["fuzz_map_response", "fuzz_map_request", "fuzz_register_request", "fuzz_register_response"]
ROUNDS = settings(max_examples=60)


def _byte_strings(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        return [raw for item in value.values() for raw in _byte_strings(item)]
    if isinstance(value, list):
        return [raw for item in value for raw in _byte_strings(item)]
    if isinstance(value, str) and len(value) >= 16:
        try:
            return [bytes.fromhex(value)]
        except ValueError:
            return []
    return []


@pytest.mark.parametrize("name", TARGETS)
def test_target_on_noise(name):
    @ROUNDS
    @example(b"")
    @given(st.binary(max_size=200))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_target_on_damaged_vectors(name, vectors):
    files = ["noise_ik", "frames", "wireguard", "disco", "derp", "stun", "misc"]
    seeds = [raw for file in files for raw in _byte_strings(vectors(file))]

    @ROUNDS
    @given(st.sampled_from(seeds), st.integers(0, 1 << 30), st.binary(min_size=0, max_size=3), st.integers(0, 9))
    def run(seed: bytes, position: int, patch: bytes, strip: int) -> None:
        # Some seeds are whole DERP frames; without the first bytes they are payloads.
        data = bytearray(seed[strip:])
        if data:
            at = position % len(data)
            data[at : at + len(patch)] = patch
        TARGETS[name](bytes(data))

    run()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["100.64.0.1/32", "1.2.3.4:5", "nodekey:" + "0" * 64, "2024-02-29T00:00:00Z", "AQI="])
)
NAMES = sorted(codec._shape(control.MapResponse)._root.fields) + sorted(codec._shape(control.Node)._root.fields)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, *map(str.lower, NAMES), "1", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", [*JSON_TARGETS, "fuzz_map_response_loosely", "fuzz_derp_info"])
def test_target_on_documents(name):
    @settings(max_examples=150)
    @given(st.dictionaries(st.sampled_from(NAMES), DOCUMENTS, max_size=6))
    def run(document: dict[str, Any]) -> None:
        TARGETS[name](json.dumps(document).encode())

    run()


@pytest.mark.parametrize("name", [*JSON_TARGETS, "fuzz_map_response_loosely"])
def test_target_on_recorded_messages_with_one_change(name, vectors):
    messages = [message["map"] for message in vectors("control_recorded")["messages"] if "map" in message]

    @ROUNDS
    @given(st.sampled_from(messages), st.integers(0, 1 << 30), st.sampled_from(["null", "5.0", '"5"', "[]", "{}"]))
    def run(message: dict[str, Any], position: int, value: str) -> None:
        text = json.dumps(message)
        colons = [at for at, char in enumerate(text) if char == ":" and text[at + 1] == " "]
        at = colons[position % len(colons)] + 2
        depth_end = json.JSONDecoder().raw_decode(text, at)[1]
        TARGETS[name]((text[:at] + value + text[depth_end:]).encode())

    run()
