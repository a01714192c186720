"""The declarative configuration file."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError
from meshd.core import prefs as p
from meshd.core.configfile import MAX_BYTES, ConfigFile, parse_config

WHOLE = """
// router of the workshop
{
  "version": "alpha0",
  "Locked": false,
  "ServerURL": "https://mesh.example.com",
  "AuthKey": "file:/run/key",
  "OperatorUser": "ann",
  "Hostname": "gw", /* short */
  "acceptDNS": false,
  "acceptRoutes": true,
  "exitNode": "100.64.0.9",
  "allowLANWhileUsingExitNode": true,
  "AdvertiseRoutes": ["10.0.0.0/8",],
  "DisableSNAT": true,
  "NetfilterMode": "nodivert",
  "NoStatefulFiltering": "false",
  "PostureChecking": true,
  "ShieldsUp": false,
  "AutoUpdate": {"Check": false, "Apply": false},
  "StaticEndpoints": ["192.0.2.1:41641"],
}
"""


def read(text: str) -> ConfigFile:
    return parse_config(text.encode(), "/etc/m.hujson")


def complaint(text: str) -> str:
    with pytest.raises(MeshdError) as caught:
        read(text)
    assert caught.value.code == "config"
    return caught.value.message


def test_config_every_field_becomes_its_preference() -> None:
    """CF-01; the table of 6.6."""
    config = read(WHOLE)
    prefs = p.edit(p.default_prefs(), config.masked)
    assert (prefs.control_url, prefs.operator_user, prefs.hostname) == ("https://mesh.example.com", "ann", "gw")
    assert (prefs.corp_dns, prefs.route_all, prefs.exit_node_ip) == (False, True, "100.64.0.9")
    assert (prefs.exit_node_allow_lan_access, prefs.advertise_routes, prefs.no_snat) == (True, ("10.0.0.0/8",), True)
    assert (prefs.netfilter_mode, prefs.no_stateful_filtering, prefs.posture_checking) == (1, False, True)
    assert prefs.auto_update == p.AutoUpdatePrefs(False, False)
    assert (prefs.want_running, prefs.logged_out) == (True, False)
    assert (config.locked, config.enabled, config.auth_key) == (False, True, "file:/run/key")
    assert [str(e) for e in config.static_endpoints] == ["192.0.2.1:41641"]


@pytest.mark.parametrize(
    ("field", "value", "preference", "expected"),
    [
        ("acceptRoutes", False, "RouteAll", False),
        ("AdvertiseServices", ["svc:a"], "AdvertiseServices", ["svc:a"]),
        ("AppConnector", {"Advertise": True}, "AppConnector", {"Advertise": True}),
        ("RunSSHServer", True, "RunSSH", True),
        ("RunWebClient", True, "RunWebClient", True),
        ("ShieldsUp", True, "ShieldsUp", True),
        ("RemoteConfig", True, "RemoteConfig", True),
        ("RelayServerPort", 40000, "RelayServerPort", 40000),
        ("RelayServerStaticEndpoints", ["192.0.2.1:40000"], "RelayServerStaticEndpoints", ["192.0.2.1:40000"]),
    ],
)
def test_config_field_is_a_preference_by_another_name(
    field: str, value: object, preference: str, expected: object
) -> None:
    """CF-01: and one that is null says nothing."""
    said = read(json.dumps({"version": "alpha0", field: value})).masked
    assert said[preference] == expected
    assert said[f"{preference}Set"]
    assert read(json.dumps({"version": "alpha0", field: None})).masked.get(preference) in (None, [])


def test_config_what_is_absent_keeps_its_value_and_the_lock_is_on() -> None:
    """CF-01: only WantRunning and the services are always set."""
    config = read('{"version": "alpha0"}')
    before = p.from_json({"Hostname": "old", "CorpDNS": False, "LoggedOut": True})
    after = p.edit(before, config.masked)
    assert (after.hostname, after.corp_dns, after.logged_out, after.want_running) == ("old", False, True, True)
    assert config.locked
    assert read('{"version": "alpha0", "Enabled": false}').masked["WantRunning"] is False


def test_config_exit_node_by_id_and_offering_one() -> None:
    prefs = p.edit(p.Prefs(), read('{"version": "alpha0", "exitNode": "n1"}').masked)
    assert (prefs.exit_node_id, prefs.exit_node_ip) == ("n1", "")
    offers = read('{"version":"alpha0","AdvertiseRoutes":["10.0.0.0/8"],"AdvertiseExitNode":true}')
    assert p.edit(p.Prefs(), offers.masked).advertise_routes == ("10.0.0.0/8", "0.0.0.0/0", "::/0")
    assert read('{"version":"alpha0","exitNode":null}').masked.get("ExitNodeIDSet") is None


def test_config_names_match_in_any_case() -> None:
    """INV-7."""
    assert read('{"VERSION": "alpha0", "hostName": "x"}').masked["Hostname"] == "x"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"version": "alpha0",\n "Hostnam": "x"}', "unknown field 'Hostnam'; did you mean 'Hostname'? at line 2"),
        ('{"version": "alpha0",\n "zzz": 1}', "unknown field 'zzz' at line 2"),
        ("{}", 'no "version" field defined'),
        ('{"version": "beta"}', 'unsupported "version" value \'beta\'; want "alpha0" for now'),
        ("[]", "an object in braces was expected"),
        ('{"version": "alpha0", "Hostname": 5}', "a text in quotes was expected"),
        ('{"version": "alpha0", "acceptDNS": "yes"}', "true or false was expected"),
        ('{"version": "alpha0", "AdvertiseRoutes": ["10.1.2.3/8"]}', "has non-address bits set; expected 10.0.0.0/8"),
        ('{"version": "alpha0", "AdvertiseRoutes": ["10.1.2.3"]}', "not a route such as 10.1.2.3/32"),
        ('{"version": "alpha0", "AdvertiseRoutes": [1]}', "a text in quotes was expected at line 1, column 43"),
        ('{"version": "alpha0", "AdvertiseRoutes": "10.0.0.0/8"}', "a list in brackets was expected"),
        ('{"version": "alpha0", "NetfilterMode": "maybe"}', "unknown netfilter mode 'maybe'"),
        ('{"version": "alpha0", "AutoUpdate": {"Chek": true}}', "unknown field 'Chek'"),
        ('{"version": "alpha0", "StaticEndpoints": ["x"]}', "is not an address and port"),
        ('{"version": "alpha0", "Hostname": "a", "hostname": "b"}', "stands twice"),
        ('{"version": "alpha0", "RelayServerPort": 70000}', "a port from 0 to 65535 was expected"),
        ('{"version": "alpha0"} x', "text after the end of the document"),
        ('{"version": "alpha0",', "at line 1, column"),
        ("", "a value is missing at line 1, column 1"),
    ],
)
def test_config_bad_text_is_refused_with_its_place(text: str, problem: str) -> None:
    """CF-01: strict reading."""
    said = complaint(text)
    assert said.startswith("error parsing config file /etc/m.hujson: ")
    assert problem in said
    assert "at line" in said


def test_config_too_long_or_no_text_is_refused() -> None:
    with pytest.raises(MeshdError, match="longer than"):
        parse_config(b" " * (MAX_BYTES + 1), "x")
    with pytest.raises(MeshdError, match="not UTF-8 at line 2, column 3"):
        parse_config(b"{\n  \xff}", "x")
    with pytest.raises(MeshdError, match="too many nested"):
        parse_config(b'{"a":' + b"[" * 100_000, "x")


def test_config_parts_that_this_build_lacks_are_named() -> None:
    config = read('{"version":"alpha0","ServeConfigTemp":{"TCP":{}},"RelayServerPort":40000}')
    assert config.unused == ("ServeConfigTemp",)
    prefs = p.edit(p.Prefs(), config.masked)
    assert p.without_effect(prefs) == ["RelayServerPort"]
    assert p.edit(prefs, read('{"version":"alpha0"}').masked).relay_server_port is None


def test_config_key_is_never_shown() -> None:
    assert "tskey" not in repr(read('{"version": "alpha0", "AuthKey": "tskey-secret"}'))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        *("Locked", "ServerURL", "AuthKey", "Enabled", "exitNode", "AdvertiseRoutes", "NetfilterMode", "AutoUpdate"),
        *("AppConnector", "StaticEndpoints", "ServeConfigTemp", "NoStatefulFiltering", "AdvertiseExitNode", "x"),
    ]
)


@given(st.dictionaries(names, values))
def test_config_any_values_give_preferences_or_a_clear_error(fields: dict[str, object]) -> None:
    """CF-01: whatever stands in the file."""
    try:
        config = read(json.dumps({"version": "alpha0", **fields}))
    except MeshdError as error:
        assert "at line" in error.message
        return
    p.edit(p.Prefs(), config.masked)


@given(st.text(max_size=60))
def test_config_any_text_is_refused_clearly(text: str) -> None:
    complaint(text)
