"""What the coordination server says about our health."""

from __future__ import annotations

from meshd.core.controlmessages import MAX_ID, MAX_MESSAGES, ControlMessages
from meshd.wire.control import DisplayMessage, DisplayMessageAction

NOTE = DisplayMessage(title="t")


def test_messages_named_ones_are_a_patch() -> None:
    """HE-01: DisplayMessages add, replace, remove, and `*` clears first."""
    messages = ControlMessages()
    messages.apply(None, {"a": NOTE, "b": NOTE})
    messages.apply(None, {"a": None, "c": NOTE})
    assert list(messages.current()) == ["b", "c"]
    messages.apply(None, {})
    assert list(messages.current()) == ["b", "c"]
    messages.apply(None, {"d": NOTE, "*": None})
    assert list(messages.current()) == ["d"]


def test_messages_texts_replace_and_empty_clears() -> None:
    """HE-01: SetControlHealth with plain texts."""
    messages = ControlMessages()
    messages.apply(("x", "y"), {})
    told = messages.current()
    assert [m.text for m in told.values()] == [
        f"The coordination server is reporting a health issue: {t}" for t in "xy"
    ]
    assert all(name.startswith("health-") for name in told)
    messages.apply(None, {})
    assert len(messages.current()) == 2
    messages.apply(None, {"a": NOTE})
    assert list(messages.current()) == ["a"], "named ones win"
    messages.apply((), {"*": None})
    assert messages.current() == {}


def test_messages_long_id_is_the_same_one_when_it_goes() -> None:
    messages = ControlMessages()
    messages.apply(None, {"i" * 129: NOTE})
    assert list(messages.current()) == ["i" * MAX_ID]
    messages.apply(None, {str(n): NOTE for n in range(MAX_MESSAGES - 1)})
    changed = DisplayMessage(title="changed")
    messages.apply(None, {"i" * 129: changed})
    assert messages.current()["i" * MAX_ID] == changed
    messages.apply(None, {"i" * 129: None})
    assert "i" * MAX_ID not in messages.current()


def test_messages_hostile_ones_are_bounded() -> None:
    messages = ControlMessages()
    action = DisplayMessageAction(url="javascript:alert(1)", label="x")
    huge = DisplayMessage(title="t" * 9999, text="x" * 99999, primary_action=action)
    messages.apply(("h" * 99999,) * 500, {str(i): huge for i in range(500)})
    told = messages.current()
    assert len(told) == MAX_MESSAGES
    assert all(len(m.title) == 200 and len(m.text) == 2000 and m.primary_action is None for m in told.values())
