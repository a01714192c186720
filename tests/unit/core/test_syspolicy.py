"""The system policy: reading, and what it leaves of preferences."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError
from meshd.core.prefs import AutoUpdatePrefs, Prefs
from meshd.core.syspolicy import Policy, overlay, parse_duration, parse_policy


def policy(**settings: Any) -> Policy:
    made = parse_policy(json.dumps({k.replace("__", "."): v for k, v in settings.items()}).encode(), "/p")
    assert not made.problems
    return made


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("UnattendedMode", "force_daemon"),
        ("ExitNodeAllowLANAccess", "exit_node_allow_lan_access"),
        ("UseTailscaleDNSSettings", "corp_dns"),
        ("UseTailscaleSubnets", "route_all"),
        ("PostureChecking", "posture_checking"),
    ],
)
def test_overlay_options_hold_always_and_never(name: str, field: str) -> None:
    """PP-09, table 1.2b."""
    for user in (True, False):
        prefs = Prefs(**{field: user})
        assert getattr(overlay(prefs, policy(**{name: "always"})), field) is True
        assert getattr(overlay(prefs, policy(**{name: "never"})), field) is False
        assert overlay(prefs, policy(**{name: "user-decides"})) == prefs


def test_overlay_incoming_is_the_reverse_of_shields_up() -> None:
    """PP-09."""
    assert overlay(Prefs(), policy(AllowIncomingConnections="never")).shields_up
    assert not overlay(Prefs(shields_up=True), policy(AllowIncomingConnections="always")).shields_up


def test_overlay_updates_and_url_and_name() -> None:
    """PP-09; an empty name clears the user's."""
    held = overlay(Prefs(hostname="x"), policy(CheckUpdates="never", LoginURL="https://a", Hostname=""))
    assert (held.auto_update, held.control_url, held.hostname) == (AutoUpdatePrefs(check=False), "https://a", "")
    assert overlay(Prefs(), policy(InstallUpdates="never")).auto_update == AutoUpdatePrefs()
    assert overlay(Prefs(auto_update=AutoUpdatePrefs(apply=True)), policy(InstallUpdates="never")).auto_update == (
        AutoUpdatePrefs(apply=False)
    )
    assert overlay(Prefs(), policy(LoginURL="")).control_url == ""


def test_overlay_offering_an_exit_node_keeps_other_routes() -> None:
    """PP-09: AdvertiseExitNode."""
    prefs = Prefs(advertise_routes=("10.0.0.0/8",))
    offers = overlay(prefs, policy(AdvertiseExitNode="always"))
    assert offers.advertise_routes == ("10.0.0.0/8", "0.0.0.0/0", "::/0")
    assert overlay(offers, policy(AdvertiseExitNode="never")) == prefs
    assert overlay(Prefs(), policy(AdvertiseExitNode="never")) == Prefs()


def test_overlay_exit_node_by_id_address_and_choice() -> None:
    """EX-10, PP-08, PP-17."""
    user = Prefs(exit_node_id="u", exit_node_ip="100.64.0.1", auto_exit_node="any")
    held = overlay(user, policy(ExitNodeID="n1"))
    assert (held.exit_node_id, held.exit_node_ip, held.auto_exit_node) == ("n1", "", "")
    held = overlay(user, policy(ExitNodeIP="100.64.0.2"))
    assert (held.exit_node_id, held.exit_node_ip, held.auto_exit_node) == ("", "100.64.0.2", "")
    held = overlay(user, policy(ExitNodeID="auto:any"))
    assert (held.exit_node_id, held.auto_exit_node) == ("u", "any")
    held = overlay(user, policy(ExitNodeID="auto:any", AllowedSuggestedExitNodes=["n2"]))
    assert held.exit_node_id == "auto:any"
    assert overlay(user, policy(ExitNodeID="n1"), exit_node=False) == user


def test_overlay_always_on_connects_unless_overridden() -> None:
    """SM-18."""
    always = policy(AlwaysOn__Enabled=True)
    assert overlay(Prefs(), always).want_running
    assert not overlay(Prefs(), always, always_on=False).want_running


def test_overlay_never_asks_for_what_the_check_refuses() -> None:
    """PP-09: this build installs no updates; with that stored every later edit would be refused."""
    always = policy(InstallUpdates="always")
    for user in (None, False):
        assert overlay(Prefs(auto_update=AutoUpdatePrefs(apply=user)), always).auto_update.apply is user
    assert (always.problems, always.without_effect) == ([], ["InstallUpdates"])
    assert policy(InstallUpdates="never").without_effect == []


@given(st.fixed_dictionaries({}, optional={
    "UseTailscaleSubnets": st.sampled_from(["always", "never", "user-decides"]),
    "AdvertiseExitNode": st.sampled_from(["always", "never", "user-decides"]),
    "InstallUpdates": st.sampled_from(["always", "never"]),
    "AllowIncomingConnections": st.sampled_from(["always", "never"]),
    "ExitNodeID": st.sampled_from(["n1", "auto:any", ""]),
    "ExitNodeIP": st.sampled_from(["100.64.0.1", ""]),
    "AlwaysOn.Enabled": st.booleans(),
}))  # fmt: skip
def test_overlay_twice_is_once(settings: dict[str, Any]) -> None:
    """PP-09: a policy in force changes nothing more."""
    made = parse_policy(json.dumps(settings).encode(), "/p")
    once = overlay(Prefs(advertise_routes=("10.0.0.0/8",)), made)
    assert overlay(once, made) == once


WITHOUT_EFFECT: dict[str, Any] = {
    "LogTarget": "https://logs.example.com",
    "AllowTailscaledRestart": True,
    "EncryptState": True,
    "HardwareAttestation": True,
    "MachineCertificateSubject": "CN=x",
    "EnableDNSRegistration": "always",
    "LogSCMInteractions": True,
    "FlushDNSOnSessionUnlock": True,
    "KeyExpirationNotice": "24h",
    "ManagedByOrganizationName": "Example",
    "AdminConsole": "hide",
    "OnboardingFlow": "hide",
}


def test_policy_settings_without_effect_here_are_known() -> None:
    """One file serves all machines of an organization: what concerns others is shown, and changes nothing."""
    made = parse_policy(json.dumps(WITHOUT_EFFECT).encode(), "/p")
    assert made.problems == []
    assert {name: told["Value"] for name, told in made.to_json()["Settings"].items()} == WITHOUT_EFFECT
    assert overlay(Prefs(), made) == Prefs()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"UseTailscaleDNSSettings": "yes"}', '"yes" is none of always, never, user-decides'),
        ('{"UseTailscaleDNSSettings": true}', "expected a text in quotes"),
        ('{"AlwaysOn.Enabled": "true"}', "expected true or false"),
        ('{"AllowedSuggestedExitNodes": ["a", 1]}', "expected a list of texts"),
        ('{"ReconnectAfter": "soon"}', '"soon" is not a duration'),
        ('{"ExitNodeIP": "home"}', '"home" is not an IP address'),
        ('{"LoginURL": "ftp://x"}', "must start with http:// or https://"),
        ('{\n"Nonsense": 1}', 'unknown policy setting "Nonsense" (line 2)'),
    ],
)
def test_policy_bad_setting_is_shown_and_has_no_effect(text: str, error: str) -> None:
    made = parse_policy(text.encode(), "/p")
    assert error in made.problems[0]
    assert overlay(Prefs(), made) == Prefs()
    (setting,) = made.to_json()["Settings"].values()
    assert error in setting["Error"]
    assert "Value" not in setting


def test_policy_file_that_is_no_object_is_refused_with_its_place() -> None:
    for text in (b"", b"[]", b"{", b"\xff", b'{"a":' + b"[" * 1000):
        with pytest.raises(MeshdError, match=r"error parsing policy file /p: .* at line 1, column"):
            parse_policy(text, "/p")
    with pytest.raises(MeshdError, match="longer than"):
        parse_policy(b" " * (1 << 21), "/p")


def test_policy_snapshot_names_origin_and_hides_the_key() -> None:
    shown = policy(AuthKey="tskey-1", Tailnet="t").to_json()
    assert shown["Summary"] == {"Scope": "Device"}
    assert shown["Settings"]["Tailnet"] == {"Value": "t", "Origin": {"Name": "JSONFile", "Scope": "Device"}}
    assert "tskey-1" not in json.dumps(shown)
    assert Policy().to_json() == {"Summary": {"Scope": "Device"}}


def test_duration_as_go_writes_it() -> None:
    assert [parse_duration(t) for t in ("0", "90s", "1h30m", "1.5h", "250ms")] == [0, 90, 5400, 5400, 0.25]
    for text in ("", "5", "s", "1d", "-5s", "1h 2m", "1" * 100 + "s"):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration(text)


@given(st.text(max_size=40))
def test_policy_any_text_is_a_policy_or_a_clear_error(text: str) -> None:
    try:
        made = parse_policy(text.encode("utf-8", "surrogatepass"), "/p")
    except MeshdError as error:
        assert "at line" in error.message
        return
    overlay(Prefs(), made)
