"""Configuration file and system policy as they rule a backend."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.core.state import State
from meshd.node.authority import Authority
from meshd.node.backend import Backend
from meshd.node.store import MemoryStore
from tests.unit.node.backendworld import Fixture, log_in
from tests.unit.node.test_watch import service

LOCKED = "can't reconfigure tailscaled when using a config file; config file is locked"


class Disk:
    """Files that a test writes."""

    def __init__(self, **files: Any) -> None:
        self.files = {name: self._text(content) for name, content in files.items()}

    @staticmethod
    def _text(content: Any) -> bytes:
        return content if isinstance(content, bytes) else json.dumps(content).encode()

    def write(self, name: str, content: Any) -> None:
        self.files[name] = self._text(content)

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        if self.files[path] == b"EIO":
            raise OSError(5, "Input/output error", path)
        return self.files[path]


def config(**fields: Any) -> dict[str, Any]:
    return {"version": "alpha0", **fields}


def ruled(disk: Disk, config_path: str = "", policy_path: str = "policy") -> Authority:
    authority = Authority(config_path, policy_path, disk.read)
    authority.load()
    return authority


def run(test: Any, authority: Authority) -> Fixture:
    async def body() -> Fixture:
        made = Fixture(MemoryStore(), authority=authority)
        made.record()
        await test(made)
        await made.backend.close()
        return made

    return asyncio.run(body())


# -- the configuration file ---------------------------------------------------------------------------------------


def test_config_logs_in_at_start_with_its_key() -> None:
    """CF-01, SM-10, SM-12."""
    disk = Disk(c=config(AuthKey="file:key", Hostname="gw", ServerURL="https://m.example"), key=b" tskey-1\n")

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.prefs.hostname == "gw"
        assert made.control.options["auth_key"] == "tskey-1"
        assert made.control.options["server_url"] == "https://m.example"
        assert any(call.startswith("login") for call in made.control.calls)

    run(test, ruled(disk, "c"))


def test_config_from_a_pipe_is_not_waited_for_when_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CF-02: `--config=<(…)` has nobody behind it at a SIGHUP, and the whole node waited for somebody."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    authority = Authority(str(path))

    def fill(hostname: str, act: Callable[[], object]) -> None:
        writer = threading.Thread(target=lambda: path.write_text(json.dumps(config(Hostname=hostname))))
        writer.start()
        act()
        writer.join()
        assert authority.config is not None
        assert authority.config.masked["Hostname"] == hostname

    fill("first", authority.load)
    monkeypatch.setattr("meshd.node.authority.PIPE_PATIENCE_S", 0.0)
    with pytest.raises(MeshdError, match="nobody writes to"):
        authority.reload_config()
    monkeypatch.setattr("meshd.node.authority.PIPE_PATIENCE_S", 60.0)
    fill("second", authority.reload_config)


def test_config_key_that_was_cleared_away_does_not_keep_out_a_node_that_is_logged_in() -> None:
    """CF-01: a restart needs no auth key; a login does."""
    store = MemoryStore()
    disk = Disk(c=config(AuthKey="file:key"), key=b"tskey-1")

    async def body(test: Callable[[Fixture], None]) -> None:
        made = Fixture(store, authority=ruled(disk, "c"))
        made.backend.begin()
        test(made)
        store.ephemeral = False  # at the end nobody logs out
        await made.backend.close()

    def again(made: Fixture) -> None:
        assert any(call.startswith("login") for call in made.control.calls)
        assert made.control.options["auth_key"] == ""
        assert not any("authKey" in text for text in made.backend.health.texts())
        with pytest.raises(MeshdError, match="authKey: No such file"):
            made.backend.new_profile()

    asyncio.run(body(log_in))
    del disk.files["key"]
    asyncio.run(body(again))


def test_config_without_key_waits_for_a_login() -> None:
    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.NEEDS_LOGIN
        assert made.backend.prefs.want_running

    run(test, ruled(Disk(c=config()), "c"))


def test_config_locked_refuses_every_edit_with_the_known_sentence() -> None:
    """CF-01, PP-05, PP-06."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        before = made.backend.prefs
        for act in (
            lambda: made.backend.edit_prefs({"Hostname": "x", "HostnameSet": True}),
            lambda: made.backend.edit_prefs({}),
            lambda: made.backend.start({"UpdatePrefs": {"Hostname": "x"}}),
            lambda: made.backend.check(before),
            lambda: made.backend.use_exit_node(False),
        ):
            with pytest.raises(MeshdError) as caught:
                act()
            assert (caught.value.message, caught.value.code) == (LOCKED, "invalid")
        with pytest.raises(MeshdError, match="config file is locked"):
            await made.backend.logout()
        assert made.backend.prefs == before

    run(test, ruled(Disk(c=config()), "c"))


def test_config_unlocked_leaves_edits_to_the_user() -> None:
    """CF-01."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.edit_prefs({"Hostname": "x", "HostnameSet": True}).hostname == "x"

    run(test, ruled(Disk(c=config(Locked=False)), "c"))


def test_config_reload_applies_what_is_new_and_refuses_what_is_bad() -> None:
    """CF-02."""
    disk = Disk(c=config(Hostname="one"))

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        disk.write("c", config(Hostname="two", Locked=False))
        assert backend.reload_config()
        assert backend.prefs.hostname == "two"
        assert made.control.calls[-1] == "hostinfo two"
        for bad in (b"{", b"EIO", config(Hostnam="x"), config(RunSSHServer=True)):
            disk.write("c", bad)
            with pytest.raises(MeshdError):
                backend.reload_config()
            assert backend.prefs.hostname == "two"
        del disk.files["c"]
        with pytest.raises(MeshdError, match="there is no such file"):
            backend.reload_config()
        backend.edit_prefs({"Hostname": "mine", "HostnameSet": True})

    run(test, ruled(disk, "c"))


def test_config_reload_with_a_key_logs_in() -> None:
    """CF-02: a key that was forgotten is added to the file."""
    disk = Disk(c=config())

    async def test(made: Fixture) -> None:
        made.backend.begin()
        disk.write("c", config(AuthKey="tskey-2"))
        assert made.backend.reload_config()
        assert made.control.options["auth_key"] == "tskey-2"
        assert any(call.startswith("login") for call in made.control.calls)

    run(test, ruled(disk, "c"))


def test_config_none_reloads_nothing() -> None:
    """CF-02."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.reload_config() is False

    run(test, ruled(Disk()))


def test_config_optional_file_may_be_absent_but_not_bad() -> None:
    """CF-01: the prefix ``optional:``."""
    disk = Disk()
    with pytest.raises(MeshdError, match="error reading config file c: there is no such file"):
        ruled(disk, "c")
    authority = ruled(disk, "optional:c")
    assert authority.config is None
    assert authority.reload_config() is False
    disk.write("c", config())
    assert authority.reload_config()
    disk.write("c", b"{")
    with pytest.raises(MeshdError, match="error parsing config file c"):
        ruled(disk, "optional:c")
    with pytest.raises(MeshdError, match="error reading config file c: Input/output error"):
        ruled(Disk(c=b"EIO"), "optional:c")
    with pytest.raises(MeshdError, match="error parsing config to prefs: .*no SSH server"):
        ruled(Disk(c=config(RunSSHServer=True)), "c")


def test_config_key_file_that_is_missing_is_told_and_nothing_is_lost() -> None:
    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.NEEDS_LOGIN
        assert any("error reading config file authKey" in text for text in made.backend.health.texts())

    run(test, ruled(Disk(c=config(AuthKey="file:gone")), "c"))


# -- the policy ---------------------------------------------------------------------------------------------------


def test_policy_is_held_over_edits_and_logins() -> None:
    """SM-12, PP-09."""
    disk = Disk(policy={"UseTailscaleDNSSettings": "never", "LoginURL": "https://m.example"})

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert not made.backend.prefs.corp_dns
        assert made.control.options["server_url"] == "https://m.example"
        assert not made.backend.edit_prefs({"CorpDNS": True, "CorpDNSSet": True}).corp_dns
        log_in(made)
        assert made.backend.prefs.control_url == "https://m.example"

    run(test, ruled(disk))


def test_policy_reload_is_carried_out_and_a_bad_file_keeps_the_old_one() -> None:
    """PP-09: LocalAPI policy/."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        assert backend.authority.policy_json() == {"Summary": {"Scope": "Device"}}
        disk.write("policy", {"AllowIncomingConnections": "never"})
        backend.reload_policy()
        assert backend.prefs.shields_up
        disk.write("policy", b"{")
        backend.reload_policy()
        assert backend.prefs.shields_up
        assert any("error parsing policy file policy" in text for text in backend.health.texts())
        disk.write("policy", {"AllowIncomingConnections": "sometimes"})
        backend.reload_policy()
        assert any("has bad settings" in text for text in backend.health.texts())
        del disk.files["policy"]
        backend.reload_policy()
        assert backend.authority.policy is None
        assert not any("policy" in text for text in backend.health.texts())

    run(test, ruled(disk))


def test_policy_that_changes_is_told_to_those_who_watch_it() -> None:
    """watch:SysPolicyChanges: whole, after each reload that changed it, and to nobody else."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        watchers = [made.backend.bus.watch(bits) for bits in (1 << 17, 0)]
        for content in ({"AllowIncomingConnections": "never"}, {"AllowIncomingConnections": "never"}, b"{", {}):
            disk.write("policy", content)
            made.backend.reload_policy()
        told, others = ([n["Policy"] for n in w._queue if "Policy" in n] for w in watchers)
        assert [bool(policy.get("Settings")) for policy in told] == [True, False]
        assert others == []

    run(test, ruled(disk))


@pytest.mark.parametrize(("said", "may"), [({}, False), (False, False), (True, True)])
def test_policy_says_whether_operators_may_stop_the_daemon(said: Any, may: bool) -> None:
    """policy:AllowTailscaledRestart."""

    async def test(made: Fixture) -> None:
        assert service(made).operators_may_stop() is may

    run(test, ruled(Disk(policy={"AllowTailscaledRestart": said} if said != {} else {})))


def test_policy_that_wants_updates_installed_leaves_preferences_editable() -> None:
    """policy:InstallUpdates: there is no way to obey it here, and the user can still disconnect."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        for masked in ({"Hostname": "a", "HostnameSet": True}, {"WantRunning": False, "WantRunningSet": True}):
            made.backend.edit_prefs(masked)
        assert made.backend.prefs.auto_update.apply is None
        assert not made.backend.prefs.want_running

    run(test, ruled(Disk(policy={"InstallUpdates": "always"})))


def test_policy_that_makes_preferences_what_check_refuses_leaves_them_editable() -> None:
    """policy:AdvertiseExitNode over the exit node of a user, who can still disconnect."""
    disk = Disk(policy={})

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.backend.edit_prefs({"ExitNodeID": "n7", "ExitNodeIDSet": True})
        disk.write("policy", {"AdvertiseExitNode": "always"})
        made.backend.reload_policy()
        assert made.backend.prefs.offers_exit_node
        assert made.backend.prefs.wants_exit_node
        made.backend.check(replace(made.backend.prefs, hostname="x"))  # as the command line asks first
        made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})
        assert not made.backend.prefs.want_running
        with pytest.raises(MeshdError, match="host bits|non-address bits"):
            made.backend.edit_prefs({"AdvertiseRoutes": ["10.0.0.1/8"], "AdvertiseRoutesSet": True})

    run(test, ruled(disk))


def test_policy_auth_key_serves_the_first_login_only() -> None:
    """Table 1.2b: AuthKey."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.control.options["auth_key"] == "tskey-p"
        log_in(made)
        made.backend.state = State.STOPPED
        made.backend.start({})
        assert made.control.options["auth_key"] == ""

    run(test, ruled(Disk(policy={"AuthKey": " tskey-p "})))


def test_policy_network_and_serial_number_are_handed_on() -> None:
    """policy:Tailnet, policy:DeviceSerialNumber."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.control.options["tailnet"] == "example.com"
        assert made.backend.authority.serial_number == "A1"

    run(test, ruled(Disk(policy={"Tailnet": "example.com", "DeviceSerialNumber": "A1"})))
    assert (ruled(Disk()).tailnet, ruled(Disk()).serial_number) == ("", "")


def test_policy_exit_node_is_not_the_users_to_choose() -> None:
    """PP-08, PP-17."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.prefs.exit_node_id == "n1"
        for masked in ({"ExitNodeID": "n2", "ExitNodeIDSet": True}, {"ExitNodeIPSet": True}, {"AutoExitNodeSet": True}):
            with pytest.raises(MeshdError, match="exit node cannot be changed: managed by policy"):
                made.backend.edit_prefs(masked)
        with pytest.raises(MeshdError, match="managed by policy"):
            made.backend.use_exit_node(False)
        assert made.backend.use_exit_node(True).exit_node_id == "n1"

    run(test, ruled(Disk(policy={"ExitNodeID": "n1"})))


@pytest.mark.parametrize("setting", ["ExitNodeID", "ExitNodeIP"])
def test_policy_that_names_no_exit_node_leaves_users_none_to_choose(setting: str) -> None:
    """PP-17."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        with pytest.raises(MeshdError, match="managed by policy"):
            made.backend.edit_prefs({"ExitNodeID": "n2", "ExitNodeIDSet": True})
        assert not made.backend.prefs.wants_exit_node

    run(test, ruled(Disk(policy={setting: ""})))


def test_policy_exit_node_override_lasts_until_reconnecting() -> None:
    """PP-17: ExitNode.AllowOverride lets a user take another node, not none."""
    disk = Disk(policy={"ExitNodeID": "n1", "ExitNode.AllowOverride": True})

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)
        assert backend.edit_prefs({"ExitNodeID": "n2", "ExitNodeIDSet": True}).exit_node_id == "n2"
        assert backend.edit_prefs({"Hostname": "x", "HostnameSet": True}).exit_node_id == "n2"
        with pytest.raises(MeshdError, match="managed by policy"):
            backend.edit_prefs({"ExitNodeID": "", "ExitNodeIDSet": True})
        assert backend.edit_prefs({"WantRunning": False, "WantRunningSet": True}).exit_node_id == "n1"

    run(test, ruled(disk))


def test_policy_exit_node_that_the_node_chooses_can_be_overridden() -> None:
    """PP-17: the user's node stays, whatever is suggested later."""
    disk = Disk(policy={"ExitNodeID": "auto:any", "ExitNode.AllowOverride": True})

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)
        chosen = backend.edit_prefs({"ExitNodeID": "n2", "ExitNodeIDSet": True})
        assert (chosen.exit_node_id, chosen.auto_exit_node) == ("n2", "")
        backend.preferences.suggest_exit_node = lambda: "n3"
        backend.reload_policy()
        assert (backend.prefs.exit_node_id, backend.prefs.auto_exit_node) == ("n2", "")
        assert backend.edit_prefs({"WantRunning": False, "WantRunningSet": True}).auto_exit_node == "any"

    run(test, ruled(disk))


def test_policy_always_on_refuses_to_disconnect() -> None:
    """SM-18."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        for act in (
            lambda: made.backend.edit_prefs({"WantRunningSet": True}),
            lambda: made.backend.edit_prefs({"WantRunningSet": True}, "lunch"),
        ):
            with pytest.raises(MeshdError, match="disconnect not allowed: always-on mode is enabled"):
                act()
        with pytest.raises(MeshdError, match="disconnect not allowed"):
            await made.backend.logout()
        assert made.backend.prefs.want_running

    run(test, ruled(Disk(policy={"AlwaysOn.Enabled": True})))


def test_policy_always_on_lets_go_for_a_reason_and_connects_again() -> None:
    """SM-18: the override lasts for ReconnectAfter."""
    disk = Disk(policy={"AlwaysOn.Enabled": True, "AlwaysOn.OverrideWithReason": True, "ReconnectAfter": "20ms"})

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)
        with pytest.raises(MeshdError, match="disconnect not allowed: reason required"):
            backend.edit_prefs({"WantRunningSet": True})
        assert not backend.edit_prefs({"WantRunningSet": True}, "lunch").want_running
        assert not backend.edit_prefs({"Hostname": "x", "HostnameSet": True}).want_running
        for _ in range(200):
            if backend.prefs.want_running:
                break
            await asyncio.sleep(0.01)
        assert backend.prefs.want_running

    run(test, ruled(disk))


def test_policy_connects_again_although_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """SM-18: what the policy has settled is not lost with the one try to write it."""
    disk = Disk(policy={"ReconnectAfter": "20ms"})

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)
        backend.edit_prefs({"WantRunningSet": True})

        def full(changes: object) -> None:
            raise MeshdError("cannot write the state file: No space left on device")

        monkeypatch.setattr(backend.store, "update", full)
        for _ in range(200):
            if backend.prefs.want_running:
                break
            await asyncio.sleep(0.01)
        assert backend.prefs.want_running
        assert "No space left" in " ".join(backend.health.texts())

    run(test, ruled(disk))


@pytest.mark.parametrize(
    "leave",
    [Backend.new_profile, Backend.reset_auth, lambda backend: backend.delete_profile(backend.profiles.current.id)],
)
def test_policy_reconnect_timer_ends_with_the_profile(leave: Callable[[Backend], None]) -> None:
    """SM-18: and not with an attempt to leave it; a user who named a profile that is none was off for ever."""
    disk = Disk(policy={"ReconnectAfter": "1h"})

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)
        backend.edit_prefs({"WantRunningSet": True})
        assert backend.preferences._reconnect is not None
        with pytest.raises(MeshdError, match="profile not found"):
            backend.switch_profile("none")
        assert backend.preferences._reconnect is not None
        leave(backend)
        assert backend.preferences._reconnect is None

    run(test, ruled(disk))


def test_policy_override_that_cannot_be_stored_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """SM-18: the node is as connected as before, and the policy held no more."""
    disk = Disk(policy={"AlwaysOn.Enabled": True, "AlwaysOn.OverrideWithReason": True})

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)

        def full(changes: object) -> None:
            raise MeshdError("cannot write the state file: No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(backend.store, "update", full)
            with pytest.raises(MeshdError, match="No space left"):
                backend.edit_prefs({"WantRunningSet": True}, "lunch")
        assert backend.prefs.want_running
        assert backend.authority.overlay(replace(backend.prefs, want_running=False)).want_running

    run(test, ruled(disk))


def test_disconnect_for_a_reason_is_reported_to_control() -> None:
    """SM-18: what the audit log of the network is told."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        backend = made.backend
        await backend.requests.report_disconnect("work", "lunch")  # not logged in: logged, and no more
        log_in(made)
        await backend.requests.report_disconnect(backend.profiles.current.name, "lunch")
        sent = made.control.calls[-1]
        assert sent.startswith("POST /machine/audit-log ")
        body = json.loads(sent.split(" ", 2)[2])
        assert (body["Action"], body["NodeKey"][:8]) == ("DISCONNECT_NODE", "nodekey:")
        assert body["Details"].endswith("is being disconnected: lunch")

    run(test, ruled(Disk()))


async def disconnect(made: Fixture, meanwhile: Callable[[], object], masked: dict[str, object]) -> asyncio.Task[Any]:
    """A user gives a reason and the server takes its time to note it."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def request(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        asked.set()
        await answered.wait()
        return 200, b""

    made.control.request = request  # type: ignore[method-assign]
    editing = asyncio.create_task(service(made).edit_prefs(masked, "lunch"))
    async with asyncio.timeout(5):
        await asked.wait()
    meanwhile()
    answered.set()
    await asyncio.wait([editing])
    return editing


def test_disconnect_for_a_reason_is_of_the_profile_that_was_in_use() -> None:
    """SM-18: somebody switches while the server takes its time; the other profile was disconnected."""
    disk = Disk(policy={"AlwaysOn.Enabled": True, "AlwaysOn.OverrideWithReason": True})

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        edited = await disconnect(made, lambda: None, {"WantRunningSet": True})
        assert not made.backend.prefs.want_running
        assert edited.result()["WantRunning"] is False
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        edited = await disconnect(made, made.backend.new_profile, {"WantRunningSet": True, "HostnameSet": True})
        with pytest.raises(MeshdError, match="another profile is in use"):
            edited.result()
        assert made.backend.prefs.want_running

    run(test, ruled(disk))


def test_disconnect_that_may_not_be_is_not_reported() -> None:
    """SM-18."""
    disk = Disk(policy={"AlwaysOn.Enabled": True, "AlwaysOn.OverrideWithReason": True})

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        before = list(made.control.calls)
        bad = {"WantRunningSet": True, "NetfilterModeSet": True, "NetfilterMode": 7}
        with pytest.raises(MeshdError, match="NetfilterMode is 7"):
            await service(made).edit_prefs(bad, "lunch")
        assert made.control.calls == before

    run(test, ruled(disk))


# -- choosing an exit node ----------------------------------------------------------------------------------------


def test_auto_exit_node_follows_the_suggestion() -> None:
    """EX-10, PP-17, SM-06: also when the network changes."""

    async def test(made: Fixture) -> None:
        backend, suggested = made.backend, [""]
        backend.preferences.suggest_exit_node = lambda: suggested[0]
        backend.begin()
        log_in(made)
        after = backend.edit_prefs({"AutoExitNode": "any", "AutoExitNodeSet": True})
        assert (after.auto_exit_node, after.exit_node_id) == ("any", "auto:any")
        suggested[0] = "n5"
        backend.preferences.network_changed()
        assert backend.prefs.exit_node_id == "n5"
        after = backend.edit_prefs({"ExitNodeID": "n6", "ExitNodeIDSet": True})
        assert (after.auto_exit_node, after.exit_node_id) == ("", "n6")

    run(test, ruled(Disk()))


def test_auto_exit_node_of_a_node_that_is_one_is_refused_and_edits_go_on() -> None:
    """PP-05: taken, the node that is chosen later would make every edit one that is refused."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"AdvertiseRoutes": ["0.0.0.0/0", "::/0"], "AdvertiseRoutesSet": True})
        with pytest.raises(MeshdError, match="use an exit node at the same time"):
            made.backend.edit_prefs({"ExitNodeIDSet": True, "AutoExitNode": "any", "AutoExitNodeSet": True})
        assert made.backend.edit_prefs({"Hostname": "x", "HostnameSet": True}).hostname == "x"

    run(test, ruled(Disk()))


def test_auto_exit_node_switched_off_before_one_was_found_leaves_none() -> None:
    """PP-17."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"AutoExitNode": "any", "AutoExitNodeSet": True})
        after = made.backend.edit_prefs({"AutoExitNode": "", "AutoExitNodeSet": True})
        assert (after.auto_exit_node, after.exit_node_id) == ("", "")

    run(test, ruled(Disk()))
