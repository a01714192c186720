"""Messages that came together, as fewer that say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.mapruns import MAX_RUN, in_runs
from meshd.core.mapsession import MapSession
from meshd.wire.control import MapResponse
from tests.unit.core.mapworld import WALL, message, node, own
from tests.unit.core.test_mapsession_property import MESSAGES, nodes, patches, picture

ONE_KIND = st.one_of(
    st.fixed_dictionaries({"PeersChangedPatch": st.lists(patches(), min_size=1, max_size=3)}),
    st.fixed_dictionaries({"PeersChanged": st.lists(nodes(), min_size=1, max_size=3)}),
)


def patch(number: int, **fields: Any) -> MapResponse:
    return message(PeersChangedPatch=[{"NodeID": number, "Online": True, **fields}])


def changed(number: int) -> MapResponse:
    return message(PeersChanged=[node(number)])


@given(st.lists(st.one_of(ONE_KIND, ONE_KIND, MESSAGES), max_size=10))
def test_in_runs_says_the_same(given_messages: list[dict[str, Any]]) -> None:
    """NM-03."""
    messages = [message(**fields) for fields in given_messages]
    apart, together = MapSession(), MapSession()
    for session, steps in ((apart, messages), (together, in_runs(messages))):
        for step in (message(Node=own()), *steps):
            session.apply(step, WALL)
    assert apart.netmap is not None
    assert together.netmap is not None
    assert picture(apart.netmap) == picture(together.netmap)


def test_in_runs_joins_patches_and_changes_each_for_themselves() -> None:
    steps = [patch(2), patch(3), patch(2, Online=False), changed(2), changed(3), patch(4)]
    joined = in_runs(steps)
    assert [len(step.peers_changed_patch) for step in joined] == [3, 0, 1]
    assert [len(step.peers_changed) for step in joined] == [0, 2, 0]
    assert [p.online for p in joined[0].peers_changed_patch] == [True, True, False]


@pytest.mark.parametrize(
    "more",
    [
        {"KeepAlive": True},
        {"Seq": 7},
        {"PingRequest": {"URL": "https://x.test/"}},
        {"PeersRemoved": [3]},
        {"OnlineChange": {"3": True}},
        {"PeersChanged": [node(3)]},
        {"Debug": {"SleepSeconds": 1}},
        {"ControlTime": "2026-01-01T00:00:00Z"},
        {"PacketFilter": []},
        {"Health": []},
    ],
    ids=json.dumps,
)
def test_in_runs_leaves_messages_that_say_more_alone(more: dict[str, Any]) -> None:
    odd = message(PeersChangedPatch=[{"NodeID": 2, "Online": False}], **more)
    steps = [patch(2), odd, patch(2)]
    assert in_runs(steps) == steps
    assert in_runs(steps)[1] is odd


def test_in_runs_has_an_end() -> None:
    steps = [patch(n) for n in range(2, 2 + MAX_RUN + 5)]
    assert [len(step.peers_changed_patch) for step in in_runs(steps)] == [MAX_RUN, 5]
    whole = message(PeersChangedPatch=[{"NodeID": n} for n in range(2, 2 + 3 * MAX_RUN)])
    assert in_runs([patch(2), whole, patch(3)]) == [patch(2), whole, patch(3)]


def test_in_runs_of_nothing_is_nothing() -> None:
    assert in_runs([]) == []
    alone = patch(2)
    assert in_runs([alone])[0] is alone
