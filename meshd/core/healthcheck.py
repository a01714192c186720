"""What the state of a node says about its health: a pure function of what the node knows of itself."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.base.version import VERSION
from meshd.core.warnables import (
    AVAILABLE_VERSION,
    CURRENT_VERSION,
    DURATION,
    ERROR,
    REGION_ID,
    REGION_NAME,
    SERVER_NAME,
    WARMING_UP,
    WARMING_UP_S,
    Args,
    go_duration,
)
from meshd.wire.control import ClientVersion

TOO_IDLE_S = 125.0  # relay frames and map messages, keep-alives included, come more often
POLL_GAP_S = 10.0  # a map stream that is opened again sooner was not gone
LOOK_AGAIN_S = 60.0


class RelayView(msgspec.Struct):
    """The relays as a node sees them; times are monotonic seconds."""

    home: int = 0
    connected: bool = False
    heard_at: float = 0.0
    names: Mapping[int, str] = msgspec.field(default_factory=dict)
    problems: Mapping[int, str] = msgspec.field(default_factory=dict)
    """What relays report about themselves, by region."""
    tls_errors: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Why TLS to a server failed, by host name."""
    network_up: bool | None = None
    """Whether the host has an address to speak from; None when nobody looked."""
    udp4_bound: bool = True


class HealthView(msgspec.Struct):
    """What a node knows of itself at one moment; times are monotonic seconds."""

    want_running: bool = False
    wanted_since: float | None = None
    """When the user last switched the node on, in this process."""
    running: bool = False
    logged_out: bool = False
    login_error: str = ""
    sync: bool = True
    polls: bool = False
    """Whether a map stream should be open."""
    in_map_poll: bool = False
    poll_ended_at: float | None = None
    map_heard_at: float | None = None
    control_error: str = ""
    """Why the coordination server cannot be used, as far as the other problems do not say it."""
    invalid_filter: bool = False
    client_version: ClientVersion | None = None
    check_updates: bool = False
    apply_updates: bool | None = None
    relays: RelayView = msgspec.field(default_factory=RelayView)
    fake_error: str = ""


Judgement = dict[str, Args | None]
"""By code: the arguments of a problem, None for "all is well"; what is not in it stays as it was."""


def judge(view: HealthView, now: float) -> Judgement:
    """Which of the problems that follow from ``view`` there are (features of a node, not of its host)."""
    found = _first(view, now)
    found["wantrunning-false"] = None if view.want_running else {}
    if not view.want_running:
        found |= {"login-state": None, "not-in-map-poll": None, "mapresponse-timeout": None, "sync-disabled": None}
        return found
    found["sync-disabled"] = None if view.sync else {}
    found["login-state"] = None
    if view.logged_out:
        found["login-state"] = {ERROR: view.login_error} if view.login_error else {}
        found |= {"not-in-map-poll": None, "mapresponse-timeout": None}
        return found
    found["not-in-map-poll"] = found["mapresponse-timeout"] = None
    if view.polls and not view.in_map_poll:
        ended = view.poll_ended_at
        if ended is None or now - ended > POLL_GAP_S:
            found["not-in-map-poll"] = {}
            return found
    elif view.in_map_poll and view.map_heard_at is not None and now - view.map_heard_at > TOO_IDLE_S:
        found["mapresponse-timeout"] = {DURATION: go_duration(now - view.map_heard_at)}
        return found
    found |= _rest(view, found)
    return found


def next_look(view: HealthView, now: float) -> float | None:
    """When time alone may change the judgement; None while the node is off."""
    if not view.want_running:
        return None
    times = [now + LOOK_AGAIN_S]
    if _warming_up(view, now) and view.wanted_since is not None:
        times.append(view.wanted_since + WARMING_UP_S)
    ended = view.poll_ended_at
    if view.polls and not view.in_map_poll and ended is not None and now <= ended + POLL_GAP_S:
        times.append(ended + POLL_GAP_S + 0.1)
    return min(times)


def _warming_up(view: HealthView, now: float) -> bool:
    since = view.wanted_since
    return view.want_running and not view.running and since is not None and now < since + WARMING_UP_S


def _first(view: HealthView, now: float) -> Judgement:
    """What is told whether or not the node is on."""
    relays = view.relays
    found: Judgement = {
        WARMING_UP: {} if _warming_up(view, now) else None,
        "update-available": None,
        "security-update-available": None,
        "network-status": {} if relays.network_up is False else None,
        "no-udp4-bind": None if relays.udp4_bound else {},
        "invalid-packet-filter": {} if view.invalid_filter else None,
        "control": {ERROR: view.control_error} if view.control_error else None,
    }
    if not relays.problems:
        found["derp-region-error"] = None
    if not relays.tls_errors:
        found["tls-connection-failed"] = None
    news = view.client_version
    if view.check_updates and news is not None and not news.running_latest and news.latest_version:
        args = {CURRENT_VERSION: VERSION, AVAILABLE_VERSION: news.latest_version}
        if news.urgent_security_update:
            found["security-update-available"] = args
        elif view.apply_updates is not True:
            found["update-available"] = args
    return found | _relays(view, now)


def _relays(view: HealthView, now: float) -> Judgement:
    """The home relay; while there is no map, or for the first seconds, there is nothing to expect of it."""
    relays = view.relays
    found: Judgement = {"no-derp-home": None, "no-derp-connection": None, "derp-timed-out": None}
    recently_on = view.wanted_since is not None and now < view.wanted_since + WARMING_UP_S
    if not view.want_running or not view.in_map_poll or recently_on:
        return found
    if not relays.home:
        found["no-derp-home"] = {}
        return found
    where = {REGION_ID: str(relays.home)}
    name = relays.names.get(relays.home, "")
    if name:
        where[REGION_NAME] = name
    if not relays.connected:
        found["no-derp-connection"] = where
    elif now - relays.heard_at >= TOO_IDLE_S:
        found["derp-timed-out"] = where | {DURATION: go_duration(now - relays.heard_at)}
    return found


def _rest(view: HealthView, so_far: Judgement) -> Judgement:
    """What is only worth a look when login and map are in order."""
    relays = view.relays
    found: Judgement = {
        "derp-region-error": None,
        "tls-connection-failed": None,
        "test-warnable": None,
    }
    for region, problem in sorted(relays.problems.items()):
        found["derp-region-error"] = {REGION_ID: str(region), ERROR: problem}
    for host, error in sorted(relays.tls_errors.items()):
        found["tls-connection-failed"] = {SERVER_NAME: host, ERROR: error}
    if view.fake_error and not any(args is not None for args in (*so_far.values(), *found.values())):
        found["test-warnable"] = {ERROR: view.fake_error}
    return found
