"""The login state of a node: what it is, and what it should be next.

``next_state`` is the whole decision (SM-02); entering a state is the backend's work.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class State(IntEnum):
    """States by the numbers used in notifications (SM-01); ``label`` is the name used in the status."""

    NO_STATE = 0
    IN_USE_OTHER_USER = 1
    NEEDS_LOGIN = 2
    NEEDS_MACHINE_AUTH = 3
    STOPPED = 4
    STARTING = 5
    RUNNING = 6

    @property
    def label(self) -> str:
        return _LABELS[self]


_LABELS = {
    State.NO_STATE: "NoState",
    State.IN_USE_OTHER_USER: "InUseOtherUser",
    State.NEEDS_LOGIN: "NeedsLogin",
    State.NEEDS_MACHINE_AUTH: "NeedsMachineAuth",
    State.STOPPED: "Stopped",
    State.STARTING: "Starting",
    State.RUNNING: "Running",
}


class Facts(msgspec.Struct, frozen=True):
    """All that the decision depends on.

    ``auth_cant_continue``: the control client waits for a person. ``live``: a peer has handshaken, or a relay
    is connected or was tried in vain.
    """

    want_running: bool
    logged_out: bool
    blocked: bool
    has_node_key: bool
    has_netmap: bool
    auth_cant_continue: bool = False
    key_expired: bool = False
    machine_authorized: bool = True
    live: bool = False


def next_state(current: State, facts: Facts) -> State:
    """The state that follows ``current`` under ``facts``; the first rule that matches decides."""
    if not facts.want_running and not facts.logged_out and not facts.blocked and facts.has_node_key:
        return State.STOPPED
    if not facts.has_netmap:
        if facts.auth_cant_continue or facts.logged_out:
            return State.NEEDS_LOGIN
        return State.STARTING if current is State.STOPPED else current
    if not facts.want_running:
        return State.STOPPED
    if facts.key_expired:
        return State.NEEDS_LOGIN
    if not facts.machine_authorized:
        return State.NEEDS_MACHINE_AUTH
    if current is State.STARTING:
        return State.RUNNING if facts.live else State.STARTING
    return State.RUNNING if current is State.RUNNING else State.STARTING
