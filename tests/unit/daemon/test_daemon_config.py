"""The daemon with a configuration file and a system policy, as a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.cli.errors import ApiError
from tests.unit.daemon.process import refused, running, write_json


def test_daemon_config_rules_the_node_and_is_read_again(tmp_path: Path) -> None:
    """CF-01, CF-02, 4.1: --config, SIGHUP and LocalAPI reload-config."""
    path = write_json(tmp_path / "c.hujson", {"version": "alpha0", "Hostname": "one", "Enabled": False})
    with running(tmp_path, f"--config={path}") as daemon:
        client = daemon.client
        assert client.prefs()["Hostname"] == "one"
        with pytest.raises(ApiError, match="config file is locked"):
            client.edit_prefs({"Hostname": "x", "HostnameSet": True})
        for update, status in (({"Hostname": "x"}, 500), ({"Hostname": 5}, 400), (5, 400)):
            answer = client.request("POST", "/localapi/v0/start", json.dumps({"UpdatePrefs": update}).encode())
            assert answer.status == status, answer.body
        write_json(path, {"version": "alpha0", "Hostname": "two", "Enabled": False})
        daemon.hang_up()
        daemon.wait(lambda: client.prefs()["Hostname"] == "two", "the new name")
        path.write_text("{")
        answer = client.json("POST", "reload-config")
        assert answer["Reloaded"] is False
        assert "error parsing config file" in answer["Err"]
        daemon.hang_up()
        daemon.wait(lambda: "reload_failed" in daemon.output, "the complaint")
        assert client.prefs()["Hostname"] == "two"
        write_json(path, {"version": "alpha0", "Hostname": "three", "Enabled": False, "Locked": False})
        assert client.json("POST", "reload-config") == {"Reloaded": True, "Err": ""}
        assert client.edit_prefs({"Hostname": "four", "HostnameSet": True})["Hostname"] == "four"
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.output


def test_daemon_config_that_is_bad_keeps_it_from_starting(tmp_path: Path) -> None:
    """DM-01: fails early, with the reason and the place, having touched nothing."""
    path = tmp_path / "c.hujson"
    path.write_text('{\n  "version": "alpha0",\n  "Hostnam": "x",\n}')
    done = refused(tmp_path, f"--config={path}")
    assert done.returncode == 1
    assert "unknown field 'Hostnam'; did you mean 'Hostname'? at line 3, column 14" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()
    done = refused(tmp_path, "--config=/nonexistent/c")
    assert "error reading config file /nonexistent/c: there is no such file" in done.stderr


def test_daemon_config_optional_file_may_be_absent(tmp_path: Path) -> None:
    """CF-01: optional:."""
    with running(tmp_path, f"--config=optional:{tmp_path}/none") as daemon:
        assert daemon.client.json("POST", "reload-config") == {"Reloaded": False, "Err": ""}
        assert "config_absent" in daemon.output


def test_daemon_policy_file_is_in_force_and_read_again(tmp_path: Path) -> None:
    """PP-09, 4.1: --syspolicy-file, LocalAPI policy/."""
    path = write_json(tmp_path / "policy.json", {"UseTailscaleSubnets": "never"})
    with running(tmp_path, f"--syspolicy-file={path}") as daemon:
        client = daemon.client
        shown = client.json("GET", "policy/")["Settings"]["UseTailscaleSubnets"]
        assert shown == {"Value": "never", "Origin": {"Name": "JSONFile", "Scope": "Device"}}
        assert client.edit_prefs({"RouteAll": True, "RouteAllSet": True})["RouteAll"] is False
        write_json(path, {"UseTailscaleSubnets": "always"})
        assert client.json("POST", "policy/Device")["Settings"]["UseTailscaleSubnets"]["Value"] == "always"
        assert client.prefs()["RouteAll"] is True
        with pytest.raises(ApiError, match='"nowhere" is not a valid scope'):
            client.json("GET", "policy/nowhere")
        path.unlink()
        daemon.hang_up()
        daemon.wait(lambda: "Settings" not in client.json("GET", "policy/"), "the empty policy")
