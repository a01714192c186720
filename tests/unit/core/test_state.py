"""The login state machine: every rule of SM-02, then the whole table for surprises."""

from __future__ import annotations

import itertools

import pytest

from meshd.core.state import Facts, State, next_state

READY = Facts(want_running=True, logged_out=False, blocked=False, has_node_key=True, has_netmap=True)


def facts(**changes: bool) -> Facts:
    from msgspec.structs import replace

    return replace(READY, **changes)


def test_state_labels_match_the_names_clients_know() -> None:
    """SM-01."""
    assert [(s.value, s.label) for s in State] == [
        (0, "NoState"),
        (1, "InUseOtherUser"),
        (2, "NeedsLogin"),
        (3, "NeedsMachineAuth"),
        (4, "Stopped"),
        (5, "Starting"),
        (6, "Running"),
    ]


@pytest.mark.parametrize(
    ("current", "changes", "expected"),
    [
        (State.RUNNING, {"want_running": False}, State.STOPPED),
        (State.RUNNING, {"want_running": False, "has_netmap": False}, State.STOPPED),
        (State.NO_STATE, {"has_netmap": False, "logged_out": True}, State.NEEDS_LOGIN),
        (State.STARTING, {"has_netmap": False, "auth_cant_continue": True}, State.NEEDS_LOGIN),
        (State.STOPPED, {"has_netmap": False}, State.STARTING),
        (State.NO_STATE, {"has_netmap": False}, State.NO_STATE),
        (State.RUNNING, {"has_netmap": False}, State.RUNNING),
        (State.NEEDS_LOGIN, {"has_netmap": False}, State.NEEDS_LOGIN),
        (State.RUNNING, {"want_running": False, "logged_out": True}, State.STOPPED),
        (State.RUNNING, {"key_expired": True}, State.NEEDS_LOGIN),
        (State.RUNNING, {"machine_authorized": False}, State.NEEDS_MACHINE_AUTH),
        (State.NEEDS_MACHINE_AUTH, {}, State.STARTING),
        (State.STARTING, {}, State.STARTING),
        (State.STARTING, {"live": True}, State.RUNNING),
        (State.RUNNING, {}, State.RUNNING),
        (State.NEEDS_LOGIN, {}, State.STARTING),
        (State.STOPPED, {"live": True}, State.STARTING),
    ],
)
def test_next_state_rule_gives_expected_state(current: State, changes: dict[str, bool], expected: State) -> None:
    """SM-02."""
    assert next_state(current, facts(**changes)) is expected


def test_next_state_every_combination_settles_within_three_steps() -> None:
    """SM-02: repeating the decision under unchanged facts comes to rest; it never oscillates."""
    names = Facts.__struct_fields__
    for values in itertools.product((False, True), repeat=len(names)):
        given = Facts(**dict(zip(names, values, strict=True)))
        for start in State:
            path = [start]
            for _ in range(3):
                path.append(next_state(path[-1], given))
            assert path[-1] is path[-2], (given, path)
