"""Problems of a node: which there are, which show, and when."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core.health import Health, HealthEffect
from meshd.core.healthcheck import HealthView, RelayView, judge, next_look
from meshd.core.warnables import WARNABLES, go_duration, warnable
from meshd.testing.clock import FakeClock
from meshd.wire.control import ClientVersion, DisplayMessage, DisplayMessageAction

WALL = 1_790_000_000.0
CHANGED = HealthEffect.CHANGED


def running(**changes: Any) -> HealthView:
    """A node for which all is well at ``now`` 1000."""
    fields: dict[str, Any] = {
        "want_running": True,
        "wanted_since": 900.0,
        "running": True,
        "polls": True,
        "in_map_poll": True,
        "map_heard_at": 990.0,
        "relays": RelayView(home=1, connected=True, heard_at=990.0, names={1: "Here"}, network_up=True),
    }
    return HealthView(**fields | changes)


def broken(view: HealthView, now: float = 1000.0) -> dict[str, Any]:
    return {code: args for code, args in judge(view, now).items() if args is not None}


def test_judge_running_node_is_well() -> None:
    """HE-01."""
    assert broken(running()) == {}


def test_judge_stopped_node_says_only_that() -> None:
    """HE-01: `wantrunning-false` ends the checks."""
    assert broken(running(want_running=False, in_map_poll=False)) == {"wantrunning-false": {}}


def test_judge_logged_out_node_carries_the_last_error() -> None:
    """HE-01: `login-state`."""
    assert broken(running(logged_out=True, in_map_poll=False)) == {"login-state": {}}
    found = broken(running(logged_out=True, login_error="no such key"))
    assert found == {"login-state": {"error": "no such key"}}
    assert warnable("login-state").words(found["login-state"]) == (
        "You are logged out. The last login error was: no such key"
    )


def test_judge_map_stream_that_is_gone_for_ten_seconds_is_out_of_sync() -> None:
    """HE-01: `not-in-map-poll`, a stream that is opened again at once was never gone."""
    assert broken(running(in_map_poll=False, poll_ended_at=995.0)) == {}
    assert broken(running(in_map_poll=False, poll_ended_at=980.0)) == {"not-in-map-poll": {}}
    assert broken(running(in_map_poll=False)) == {"not-in-map-poll": {}}
    assert broken(running(in_map_poll=False, polls=False)) == {}


def test_judge_silent_map_stream_names_the_time() -> None:
    """HE-01: `mapresponse-timeout` after 2 min 5 s."""
    assert broken(running(map_heard_at=1000.0 - 125)) == {}
    assert broken(running(map_heard_at=1000.0 - 126)) == {"mapresponse-timeout": {"duration": "2m6s"}}


def test_judge_relays() -> None:
    """HE-01: `no-derp-home`, `no-derp-connection`, `derp-timed-out`, `derp-region-error`."""
    where = {"derp-region-id": "1", "derp-region-name": "Here"}
    names = {1: "Here"}
    assert broken(running(relays=RelayView())) == {"no-derp-home": {}}
    assert broken(running(relays=RelayView(home=1, names=names))) == {"no-derp-connection": where}
    silent = RelayView(home=1, connected=True, heard_at=870.0, names=names)
    assert broken(running(relays=silent)) == {"derp-timed-out": where | {"duration": "2m10s"}}
    sick = RelayView(home=1, connected=True, heard_at=990.0, problems={7: "too many"})
    assert broken(running(relays=sick)) == {"derp-region-error": {"derp-region-id": "7", "error": "too many"}}
    assert broken(running(relays=RelayView(), in_map_poll=False, poll_ended_at=999.0)) == {}, "there is no map yet"
    assert broken(running(relays=RelayView(), wanted_since=997.0)) == {}, "it was just switched on"


def test_judge_sockets_network_and_tls() -> None:
    """HE-01: `network-status`, `no-udp4-bind`, `tls-connection-failed`."""
    well = {"home": 1, "connected": True, "heard_at": 990.0}
    assert broken(running(relays=RelayView(**well, network_up=False))) == {"network-status": {}}
    assert broken(running(relays=RelayView(**well, udp4_bound=False))) == {"no-udp4-bind": {}}
    found = broken(running(relays=RelayView(**well, tls_errors={"derp.example": "expired"})))
    assert found == {"tls-connection-failed": {"server-name": "derp.example", "error": "expired"}}


def test_judge_relays_of_a_node_that_is_off_are_no_trouble() -> None:
    """HE-01: trouble with relays that a node left does not stay until it is on again."""
    for off in (running(want_running=False), running(logged_out=True), running(in_map_poll=False)):
        found = judge(off, 1000.0)
        assert {found["derp-region-error"], found["tls-connection-failed"], found["invalid-packet-filter"]} == {None}


def test_judge_warming_up_for_five_seconds_or_until_running() -> None:
    """HE-01: `warming-up`."""
    starting = running(running=False, wanted_since=998.0)
    assert broken(starting) == {"warming-up": {}}
    assert next_look(starting, 1000.0) == 1003.0
    assert broken(starting, 1003.0) == {}
    assert broken(running(wanted_since=998.0)) == {}


@pytest.mark.parametrize(
    ("news", "apply", "code"),
    [
        (ClientVersion(latest_version="9.9"), None, "update-available"),
        (ClientVersion(latest_version="9.9"), True, None),
        (ClientVersion(latest_version="9.9", urgent_security_update=True), True, "security-update-available"),
        (ClientVersion(latest_version="9.9", running_latest=True), None, None),
        (ClientVersion(), None, None),
        (None, None, None),
    ],
)
def test_judge_updates(news: ClientVersion | None, apply: bool | None, code: str | None) -> None:
    """HE-01, LK-14: `update-available` and `security-update-available`."""
    view = running(client_version=news, check_updates=True, apply_updates=apply)
    assert list(broken(view)) == ([code] if code else [])
    view.check_updates = False
    assert broken(view) == {}


def test_judge_settings_of_control() -> None:
    """PF-09, HE-01: `invalid-packet-filter`, `sync-disabled`."""
    assert list(broken(running(invalid_filter=True))) == ["invalid-packet-filter"]
    assert list(broken(running(sync=False))) == ["sync-disabled"]


def test_judge_test_warnable_only_beside_nothing_else() -> None:
    """HE-01: `test-warnable` by TS_DEBUG_FAKE_HEALTH_ERROR."""
    assert broken(running(fake_error="ouch")) == {"test-warnable": {"error": "ouch"}}
    assert "test-warnable" not in broken(running(fake_error="ouch", invalid_filter=True))


def test_next_look_never_while_off_else_within_a_minute() -> None:
    """A stopped node has no timer."""
    assert next_look(running(want_running=False), 1000.0) is None
    assert next_look(running(), 1000.0) == 1060.0
    assert next_look(running(in_map_poll=False, poll_ended_at=995.0), 1000.0) == pytest.approx(1005.1)


def test_warnables_have_the_delays_and_dependencies_that_clients_know() -> None:
    """HE-01: delays, severities and dependencies."""
    delays = {code: kind.delay_s for code, kind in WARNABLES.items() if kind.delay_s}
    assert delays == {
        "network-status": 5.0,
        "not-in-map-poll": 480.0,
        "no-derp-home": 10.0,
        "no-derp-connection": 10.0,
        "dns-forward-failing": 15.0,
    }
    impacts = {code for code, kind in WARNABLES.items() if kind.impacts_connectivity}
    assert impacts >= {"network-status", "no-derp-home", "no-derp-connection", "no-udp4-bind", "ip-forwarding-off"}
    assert WARNABLES["not-in-map-poll"].depends_on == ("network-status", "wantrunning-false")
    assert {c for c, k in WARNABLES.items() if k.severity == "high"} >= {"invalid-packet-filter", "state-store-health"}
    for kind in WARNABLES.values():
        assert set(kind.depends_on) <= WARNABLES.keys()


def test_health_warning_has_what_clients_show() -> None:
    """HE-02: code, severity, title, text, since when, arguments, dependencies with `warming-up` among them."""
    health = Health()
    health.set("derp-region-error", {"derp-region-id": "7", "error": "too many"}, 0.0, WALL)
    (warning,) = health.warnings().values()
    assert len(warning.pop("ETag")) == 64
    assert warning == {
        "WarnableCode": "derp-region-error",
        "Severity": "low",
        "Title": "Relay server error",
        "Text": "The relay server #7 is reporting an issue: too many",
        "BrokenSince": "2026-09-21T14:13:20Z",
        "Args": {"derp-region-id": "7", "error": "too many"},
        "DependsOn": ["network-status", "warming-up"],
    }
    assert health.drain() == [CHANGED]


def test_health_the_same_again_changes_nothing_other_words_keep_the_age() -> None:
    """HE-02."""
    health = Health()
    health.set("router", {"LegacyError": "a"}, 0.0, WALL)
    tag = health.warnings()["router"]["ETag"]
    health.drain()
    health.set("router", {"LegacyError": "a"}, 5.0, WALL + 5)
    assert health.drain() == []
    health.set("router", {"LegacyError": "b"}, 9.0, WALL + 9)
    assert health.drain() == [CHANGED]
    told = health.warnings()["router"]
    assert (told["Text"], told["BrokenSince"]) == ("b", "2026-09-21T14:13:20Z")
    assert told["ETag"] != tag
    health.clear("router")
    assert (health.drain(), health.warnings()) == ([CHANGED], {})
    health.clear("router")
    assert health.drain() == []


def test_health_delayed_problem_shows_only_when_it_lasts() -> None:
    """HE-02: time to visible."""
    clock = FakeClock()
    health = Health()
    start = clock.monotonic()
    health.set("not-in-map-poll", {}, start, WALL)
    assert (health.texts(), health.drain(), health.next_timer()) == ([], [], start + 480)
    health.clear("not-in-map-poll")
    assert (health.drain(), health.next_timer()) == ([], None)
    health.set("not-in-map-poll", {}, start, WALL)
    health.handle_timer(start + 479)
    assert health.texts() == []
    health.handle_timer(start + 480)
    assert health.texts()[0].startswith("Unable to connect to the Tailscale coordination server")
    assert (health.drain(), health.next_timer()) == ([CHANGED], None)


def test_health_consequence_of_another_problem_is_not_told() -> None:
    """HE-02: dependencies, also over two steps, also while the cause does not show yet."""
    health = Health()
    health.set("derp-region-error", {"derp-region-id": "1", "error": "x"}, 0.0, WALL)
    health.drain()
    health.set("network-status", {}, 0.0, WALL)
    assert (health.texts(), health.drain()) == ([], [CHANGED]), "the cause shows in five seconds"
    health.handle_timer(5.0)
    assert health.texts() == [WARNABLES["network-status"].text]
    health.clear("network-status")
    assert health.texts() == ["The relay server #1 is reporting an issue: x"]


def test_health_look_is_asked_for_and_stops_with_the_node() -> None:
    """HE-01: the self-check."""
    health = Health()
    health.check(running(), 1000.0, WALL)
    assert health.next_timer() == 1060.0
    health.handle_timer(1060.0)
    assert health.drain() == [HealthEffect.LOOK]
    health.check(running(want_running=False), 1060.0, WALL)
    assert (health.next_timer(), health.drain()) == (None, [CHANGED])


def test_health_messages_of_control_stand_beside_ours() -> None:
    """HE-01: `control-health.<id>` with severity, action, and one text each."""
    health = Health()
    health.set("wantrunning-false", {}, 0.0, WALL)
    action = DisplayMessageAction(url="https://c/x", label="Fix")
    health.set_messages(
        {
            "b": DisplayMessage(title="Session", severity="high", impacts_connectivity=True),
            "a": DisplayMessage(title="Blocked", text="Look.", severity="odd", primary_action=action),
        }
    )
    assert health.drain() == [CHANGED, CHANGED]
    assert health.texts() == ["Tailscale is stopped.", "Blocked: Look. Fix: https://c/x", "Session."]
    told = health.warnings()["control-health.a"]
    assert (told["Severity"], told["PrimaryAction"]) == ("medium", {"URL": "https://c/x", "Label": "Fix"})
    assert health.warnings()["control-health.b"]["ImpactsConnectivity"]
    health.set_messages({})
    assert list(health.warnings()) == ["wantrunning-false"]


def test_health_unknown_code_is_told_all_the_same() -> None:
    """warn:unlisted."""
    health = Health()
    health.set("some-part", {"error": "broken"}, 0.0, WALL)
    assert (health.warnings()["some-part"]["Title"], health.texts()) == ("some part", ["broken"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (59.4, "59s"), (125, "2m5s"), (3600, "1h0m0s"), (7384, "2h3m4s")]
)
def test_go_duration(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
