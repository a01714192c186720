"""`mesh up` and `mesh login`: what they send, what they wait for, what they refuse (features U-1 … U-8)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.cli.main import main
from meshd.testing.fakebackend import LOGIN_URL, PEER_KEY

SERVER = "--login-server=http://control.test"


def calls(localapi, name: str) -> list:
    return [call for call in localapi.backend.calls if call[0] == name]


def fresh(localapi) -> None:
    """A node that was never logged in."""
    node = localapi.backend
    node.state = "NeedsLogin"
    node.have_node_key = False
    node.stored |= {"ControlURL": "", "WantRunning": False, "LoggedOut": True}


def when_waiting(localapi, action, after: str = "login_interactive") -> None:
    """Run ``action`` on the node's loop as soon as the command has seen the status behind what it asked for."""
    node = localapi.backend
    original = node.status

    def status(*, peers: bool = True):
        answer = original(peers=peers)
        if calls(localapi, after):
            node.status = original
            asyncio.get_running_loop().call_soon(action)
        return answer

    node.status = status


def test_up_bare_on_a_stopped_node_only_brings_it_up(mesh, localapi) -> None:
    """U-5, simple up."""
    mesh("down")
    got = mesh("up")
    assert (got.code, got.out, got.err) == (0, "", "")
    assert localapi.backend.state == "Running"
    assert calls(localapi, "edit_prefs")[-1][1] == {"WantRunning": True, "WantRunningSet": True}
    assert calls(localapi, "start") == []


def test_up_bare_while_a_logout_is_under_way_overtakes_it(mesh, localapi) -> None:
    """U-5: the node is down by then and has its login still; who only connected it lost that, and waited for ever."""
    mesh("down")
    localapi.backend.stored |= {"LoggedOut": True}
    assert mesh("up").code == 0
    assert calls(localapi, "edit_prefs")[-1][1] == {
        "WantRunning": True,
        "WantRunningSet": True,
        "LoggedOut": False,
        "LoggedOutSet": True,
    }


def test_up_bare_on_a_running_node_does_not_hang(mesh, localapi) -> None:
    """U-5."""
    assert mesh("up").code == 0
    assert calls(localapi, "edit_prefs")[-1][1] == {"WantRunning": True, "WantRunningSet": True}


def test_up_running_with_all_flags_is_one_edit(mesh, localapi) -> None:
    """U-5, cli:up --accept-routes: just edit: masks of the flags given, and no waiting."""
    assert mesh("up", SERVER, "--hostname=y", "--accept-routes").code == 0
    assert calls(localapi, "edit_prefs") == [
        (
            "edit_prefs",
            {
                "WantRunning": True,
                "WantRunningSet": True,
                "ControlURL": "http://control.test",
                "ControlURLSet": True,
                "Hostname": "y",
                "HostnameSet": True,
                "RouteAll": True,
                "RouteAllSet": True,
            },
        )
    ]


def test_up_unmentioned_settings_are_refused_with_the_command(mesh, localapi) -> None:
    """U-4: exit 1, the text programs look for, explicit flags first, missing ones sorted."""
    localapi.backend.stored |= {
        "RouteAll": True,
        "AdvertiseRoutes": ["10.1.0.0/24", "0.0.0.0/0", "::/0"],
        "OperatorUser": "o'neill",
        "CorpDNS": False,
        "NoSNAT": True,
    }
    got = mesh("up", "--hostname=x", "--timeout=20s")
    assert got.code == 1
    assert got.err == (
        "Error: changing settings via 'mesh up' requires mentioning all\n"
        "non-default flags. To proceed, either re-run your command with --reset or\n"
        "use the command below to explicitly mention the current value of\n"
        "all non-default settings:\n\n"
        "\tmesh up --hostname=x --timeout=20s --accept-dns=false --accept-routes --advertise-exit-node "
        "--advertise-routes=10.1.0.0/24 --login-server=http://control.test --operator='o'\"'\"'neill' "
        "--snat-subnet-routes=false\n"
    )
    assert calls(localapi, "edit_prefs") == []


def test_up_suggested_command_is_accepted(mesh, localapi) -> None:
    """U-4: what the refusal prints can be pasted back."""
    import shlex

    localapi.backend.stored |= {"RouteAll": True, "Hostname": "h", "ShieldsUp": True, "NetfilterMode": 1}
    got = mesh("up", "--ssh")
    command = got.err.split("\tmesh ")[1]
    assert mesh(*shlex.split(command)).code == 0


def test_up_revert_check_never_prints_an_auth_key(mesh) -> None:
    got = mesh("up", "--auth-key=tskey-auth-secret")
    assert got.code == 1
    assert "secret" not in got.err


def test_up_reset_sets_everything(mesh, localapi) -> None:
    """cli:up --json."""
    localapi.backend.stored |= {"RouteAll": True, "ShieldsUp": True}
    assert mesh("up", "--reset", SERVER).code == 0
    assert not localapi.backend.stored["RouteAll"]
    assert not localapi.backend.stored["ShieldsUp"]
    edit = calls(localapi, "edit_prefs")[0][1]
    assert {"HostnameSet", "AdvertiseRoutesSet", "ExitNodeIPSet", "ExitNodeIDSet", "NetfilterModeSet"} <= set(edit)


def test_up_synonyms_of_the_default_server_are_no_change(mesh, localapi) -> None:
    """U-4, cli:up --login-server: an exception."""
    localapi.backend.stored["ControlURL"] = "https://login.tailscale.com"
    assert mesh("up", "--hostname=x").code == 0


def test_up_implicit_operator_is_kept(mesh, localapi, monkeypatch) -> None:
    """U-2, U-4, cli:up --operator: the operator who runs `up` need not name herself."""
    monkeypatch.setenv("USER", "ann")
    localapi.backend.stored["OperatorUser"] = "ann"
    assert mesh("up", SERVER).code == 0
    assert localapi.backend.stored["OperatorUser"] == "ann"


def test_up_other_server_while_running_needs_force(mesh, localapi) -> None:
    """U-3."""
    got = mesh("up", "--login-server=http://other.test")
    assert (got.code, got.err) == (1, "can't change --login-server without --force-reauth\n")


def test_up_first_login_by_key(mesh, localapi) -> None:
    """U-6, cli:up --login-server, cli:up --advertise-tags: start with the key and all preferences, login asked for,
    nothing printed."""
    fresh(localapi)
    got = mesh("up", SERVER, "--auth-key=k", "--hostname=h", "--advertise-tags=eng,tag:ssh", "--timeout=5s")
    assert (got.code, got.out, got.err) == (0, "", "")
    options = calls(localapi, "start")[0][1]
    assert options["AuthKey"] == "k"
    prefs = options["UpdatePrefs"]
    assert prefs["ControlURL"] == "http://control.test"
    assert prefs["WantRunning"] is True
    assert prefs["AdvertiseTags"] == ["tag:eng", "tag:ssh"]
    assert prefs["NoStatefulFiltering"] is True


def test_up_key_from_file(mesh, localapi, tmp_path: Path) -> None:
    """cli:up --auth-key, U-2, LK-06."""
    fresh(localapi)
    file = tmp_path / "key"
    file.write_text("  the-key\n")
    assert mesh("up", SERVER, f"--auth-key=file:{file}", "--timeout=5s").code == 0
    assert calls(localapi, "start")[0][1]["AuthKey"] == "the-key"
    got = mesh("up", SERVER, "--auth-key=file:/nonexistent", "--reset")
    assert got.code == 1
    assert "cannot read the auth key from /nonexistent" in got.err
    file.write_bytes(b"\xff\xfe\x00")
    assert mesh("up", SERVER, f"--auth-key=file:{file}", "--reset").code == 1


def test_up_old_spelling_of_auth_key(mesh, localapi) -> None:
    """CL-01."""
    fresh(localapi)
    assert mesh("up", SERVER, "--authkey", "k", "--timeout=5s").code == 0
    assert calls(localapi, "start")[0][1]["AuthKey"] == "k"


def test_up_interactive_prints_the_url_once_and_success(mesh, localapi) -> None:
    """U-6: URL on stderr, repeated notifies printed once, `Success.` at the end."""
    fresh(localapi)
    node = localapi.backend
    node.login_url_after_start = LOGIN_URL

    def approved() -> None:
        node.notify(BrowseToURL=LOGIN_URL)
        node.enter("Running")

    when_waiting(localapi, approved)
    got = mesh("up", SERVER, "--timeout=5s")
    assert got.code == 0
    assert got.err == f"\nTo authenticate, visit:\n\n\t{LOGIN_URL}\n\nSuccess.\n"


def test_up_json_prints_objects(mesh, localapi) -> None:
    """cli:up --json, U-6."""
    fresh(localapi)
    node = localapi.backend
    node.login_url_after_start = LOGIN_URL
    when_waiting(localapi, lambda: node.enter("Running"))
    got = mesh("up", SERVER, "--json", "--timeout=5s")
    assert got.code == 0
    first, _, second = got.out.partition("}\n")
    assert json.loads(first + "}") == {"AuthURL": LOGIN_URL, "BackendState": "NeedsLogin"}
    assert json.loads(second) == {"BackendState": "Running"}


def test_up_json_page_that_is_told_before_the_state_means_a_login(mesh, localapi) -> None:
    """U-6: programs look for NeedsLogin beside the page."""
    fresh(localapi)
    node = localapi.backend
    node.login_url_after_start = LOGIN_URL

    def page() -> None:
        node.enter("NoState")
        node.notify(BrowseToURL=LOGIN_URL + "/2")
        node.enter("Running")

    when_waiting(localapi, page)
    got = mesh("up", SERVER, "--json", "--timeout=5s")
    shown = [json.loads(text + "}") for text in got.out.split("}\n")[:-1]]
    assert {"AuthURL": LOGIN_URL + "/2", "BackendState": "NeedsLogin"} in shown


def test_up_waits_for_approval(mesh, localapi) -> None:
    """U-6: NeedsMachineAuth."""
    fresh(localapi)
    localapi.backend.next_state_after_start = "NeedsMachineAuth"
    got = mesh("up", SERVER, "--auth-key=k", "--timeout=100ms")
    assert got.code == 1
    assert got.err.startswith("\nTo approve your machine, visit (as admin):\n\n\thttp://control.test/admin\n\n")


def test_up_bad_key_is_a_backend_error(mesh, localapi) -> None:
    """U-6: ErrMessage."""
    fresh(localapi)
    localapi.backend.login_url_after_start = LOGIN_URL
    got = mesh("up", SERVER, "--auth-key=bad", "--timeout=5s")
    assert (got.code, got.err) == (1, "backend error: invalid key: not found\n")


def test_up_timeout_names_health(mesh, localapi) -> None:
    """U-6, cli:up --timeout."""
    fresh(localapi)
    localapi.backend.next_state_after_start = "Starting"
    localapi.backend.health = ["not reachable: control.test"]
    got = mesh("up", SERVER, "--auth-key=k", "--timeout=50ms")
    assert got.code == 1
    assert got.err == (
        'timeout waiting for meshd to enter a Running state; check health with "mesh status"\n'
        "# Health check:\n#     - not reachable: control.test\n"
    )


@pytest.mark.parametrize("command", ["up", "login"])
def test_up_timeout_is_kept_when_the_daemon_hangs(silent: str, capsys, monkeypatch, command: str) -> None:
    """cli:up --timeout: also the first question is part of the time."""
    monkeypatch.setattr("meshd.cli.commands.up_command.ANSWER_S", 0.0)
    assert main([f"--socket={silent}", command, "--timeout=30ms"]) == 1
    assert capsys.readouterr().err == "timeout waiting for an answer of meshd\n"


def test_up_force_reauth_waits_for_a_new_key(mesh, localapi) -> None:
    """U-6, cli:up --json: Running with the old key is not the end."""
    import meshd.testing.fakebackend as fake

    node = localapi.backend
    node.auth_url = "http://old"

    def renewed() -> None:
        fake.SELF_KEY = "nodekey:" + "bb" * 32
        node.enter("Running")

    before = fake.SELF_KEY
    when_waiting(localapi, renewed)
    try:
        got = mesh("up", SERVER, "--force-reauth", "--timeout=5s")
    finally:
        fake.SELF_KEY = before
    assert got.code == 0
    assert "http://old" not in got.err
    assert calls(localapi, "login_interactive")


def test_up_prefs_the_daemon_refuses(mesh, localapi) -> None:
    fresh(localapi)
    got = mesh("up", SERVER, "--hostname=bad", "--auth-key=k")
    assert (got.code, got.err) == (1, "hostname 'bad' is bad\n")
    assert calls(localapi, "start") == []


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--advertise-routes=10.0.0.1/8", "10.0.0.1/8 has non-address bits set; expected 10.0.0.0/8\n"),
        (
            "--advertise-routes=fd7a:115c:a1e0:b1a::/64",
            "fd7a:115c:a1e0:b1a::/64 4-in-6 prefix must be at least a /96\n",
        ),
        (
            "--advertise-routes=fd7a:115c:a1e0:b1a:1:0:a00:0/104",
            "route fd7a:115c:a1e0:b1a:1:0:a00:0/104 contains invalid site ID 00010000; must be 0xffff or less\n",
        ),
        ("--advertise-routes=10.0.0.0", '"10.0.0.0" is not a valid IP address or CIDR prefix\n'),
        ("--advertise-routes=0.0.0.0/0", "0.0.0.0/0 advertised without ::/0, please also advertise ::/0\n"),
        ("--exit-node-allow-lan-access", "--exit-node-allow-lan-access can only be used with --exit-node\n"),
        ("--advertise-tags=x:y", "tag: \"x:y\": tags must start with 'tag:'\n"),
        ("--advertise-tags=tag:", 'tag: "tag:": tag names must not be empty\n'),
        ("--hostname=a_b", '"a_b" is not a valid DNS label: contains invalid character\n'),
        ("--hostname=-a", '"-a" is not a valid DNS label: must start and end with a letter or number\n'),
        ("--netfilter-mode=x", 'invalid value --netfilter-mode="x"\n'),
        ("--exit-node=nosuch", 'invalid value "nosuch" for --exit-node; must be IP or peer hostname\n'),
        ("--exit-node=100.64.0.9", "no node found in netmap with IP 100.64.0.9\n"),
    ],
)
def test_up_values_no_node_could_use(mesh, localapi, flag: str, message: str) -> None:
    """U-2, cli:up --exit-node, cli:up --advertise-tags, cli:up --advertise-routes, cli:up --snat-subnet-routes."""
    got = mesh("up", SERVER, flag)
    assert (got.code, got.err) == (1, message)
    assert calls(localapi, "edit_prefs") == []


def test_up_own_address_as_exit_node(mesh) -> None:
    """cli:up --exit-node."""
    assert "did you mean --advertise-exit-node?" in mesh("up", SERVER, "--exit-node=100.64.0.2").err


def test_up_exit_node_by_name(mesh, localapi) -> None:
    """cli:up --exit-node, EX-01."""
    localapi.backend.peers[PEER_KEY]["ExitNodeOption"] = True
    assert mesh("up", SERVER, "--exit-node=node-a").code == 0
    assert localapi.backend.stored["ExitNodeIP"] == "100.64.0.1"


def test_up_extra_words(mesh) -> None:
    """U-1."""
    got = mesh("up", "now")
    assert (got.code, got.err) == (1, 'too many non-flag arguments: ["now"]\n')


def test_up_tells_the_health_that_concerns_it(mesh, localapi) -> None:
    """U-7."""
    routes = "Some peers are advertising routes but --accept-routes is false"
    localapi.backend.health = ["noise", routes]
    assert mesh("up", SERVER).out == routes + "\n"
    localapi.backend.health.append("Update available: 1 -> 2, update available: yes")
    assert mesh("up", SERVER).out.startswith(f"# Health check warnings:\n#     - {routes}\n#     - ")


def test_login_makes_a_profile_and_goes_back_when_it_fails(mesh, localapi) -> None:
    node = localapi.backend
    node.login_url_after_start = LOGIN_URL
    got = mesh("login", SERVER, "--timeout=50ms")
    assert got.code == 1
    assert got.err.startswith(f"\nTo authenticate, visit:\n\n\t{LOGIN_URL}\n\ntimeout waiting")
    assert ("new_profile",) in node.calls
    assert node.calls[-1] == ("switch_profile", "df87")


def test_login_goes_back_also_when_an_argument_is_no_text(mesh, localapi) -> None:
    got = mesh("login", SERVER, "--operator=\udcff")
    assert (got.code, got.err) == (1, "mesh: an argument is no text in UTF-8, with \\xff in it\n")
    assert localapi.backend.calls[-1] == ("switch_profile", "df87")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_login_that_is_ended_by_a_signal_goes_back(mesh, localapi, number) -> None:
    """The disconnected node of `timeout 60 mesh login`: only an interrupt from the keyboard led back."""
    localapi.backend.login_url_after_start = LOGIN_URL
    when_waiting(localapi, lambda: os.kill(os.getpid(), number), after="new_profile")
    former = signal.signal(number, signal.SIG_DFL)  # below nohup it is ignored
    try:
        got = mesh("login", SERVER, "--timeout=5s")
        assert (got.code, got.err.endswith("interrupted\n")) == (1, True)
        assert localapi.backend.calls[-1] == ("switch_profile", "df87")
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, former)


def test_login_whose_daemon_goes_away_tells_what_ended_it(mesh, localapi) -> None:
    node = localapi.backend

    def gone(*, peers: bool = True) -> None:
        localapi.backend.profile_list.clear()  # of a daemon that was replaced meanwhile
        raise MeshdError("first")

    node.status = gone
    got = mesh("login", SERVER)
    assert got.code == 1
    first, second = got.err.splitlines()
    assert first.startswith("cannot switch back to the profile used before: ")
    assert "first" in second


def test_login_that_is_refused_says_so_once(mesh_to_stub, stub) -> None:
    stub.says("GET profiles/current", {"ID": "df87"})
    stub.says("PUT profiles/", b"no\n", 403)
    assert mesh_to_stub("login", SERVER).err.startswith("Access denied: no\n")
    assert stub.asked() == ["GET profiles/current", "PUT profiles/"]


def test_login_that_is_refused_when_it_had_begun_goes_back(mesh_to_stub, stub) -> None:
    stub.says("GET profiles/current", {"ID": "df87"})
    stub.says("PUT profiles/", b"", 201)
    stub.says("GET status?peers=false", b"no\n", 403)
    stub.says("POST profiles/df87", b"", 204)
    assert mesh_to_stub("login", SERVER).err.startswith("Access denied: no\n")
    assert stub.asked()[-1] == "POST profiles/df87"


def test_login_by_key(mesh, localapi) -> None:
    fresh(localapi)
    assert mesh("login", SERVER, "--auth-key=k", "--nickname=work", "--timeout=5s").code == 0
    assert calls(localapi, "start")[0][1]["UpdatePrefs"]["ProfileName"] == "work"


@pytest.mark.parametrize(("flags", "operator"), [([], "ann"), (["--operator=bob"], "bob")])
def test_login_of_an_operator_makes_a_profile_with_an_operator(mesh, localapi, flags, operator) -> None:
    """PP-13: who began it may end it, and go back. The node was left without a network."""
    fresh(localapi)
    localapi.backend.operators, localapi.uid = {1000}, 1000
    localapi.backend.stored["OperatorUser"] = "ann"
    assert mesh("login", SERVER, "--auth-key=k", *flags, "--timeout=5s").code == 0
    assert calls(localapi, "start")[0][1]["UpdatePrefs"]["OperatorUser"] == operator


def test_up_daemon_that_dies_while_we_wait(mesh, localapi) -> None:
    fresh(localapi)
    node = localapi.backend
    node.next_state_after_start = "Starting"

    def drop() -> None:
        for watch in node.watches:
            watch.queue.put_nowait(None)

    when_waiting(localapi, drop, after="start")
    got = mesh("up", SERVER, "--auth-key=k", "--timeout=5s")
    assert (got.code, got.err) == (1, 'lost the connection to meshd while waiting for it; see "mesh status"\n')


def test_up_exit_node_known_by_id_is_named_by_address(mesh, localapi) -> None:
    """U-4: the refusal must be pasteable although the preference holds an ID."""
    localapi.backend.stored["ExitNodeID"] = "1"
    assert "--exit-node=100.64.0.1 " in mesh("up", "--ssh").err


def test_up_after_logout_does_not_ask_for_accept_routes(mesh, localapi) -> None:
    """U-4 protects choices; the default of a logged-out daemon is none."""
    localapi.backend.stored |= {"RouteAll": True, "Config": None}
    localapi.backend.state = "NeedsLogin"
    assert mesh("up", SERVER, "--auth-key=k", "--timeout=5s").code == 0
    got = mesh("up", "--login-server=http://127.0.0.1:1", "--auth-key=k", "--hostname=a")
    assert "--accept-routes" not in got.err


def test_up_qr_draws_the_login_url(mesh, localapi) -> None:
    """CL-07, cli:up --qr."""
    pytest.importorskip("segno")
    localapi.backend.login_url_after_start = LOGIN_URL
    localapi.backend.state = "NeedsLogin"
    localapi.backend.have_node_key = False
    got = mesh("up", SERVER, "--reset", "--qr", "--qr-format=ascii", "--timeout=100ms")
    assert got.code == 1
    assert LOGIN_URL in got.err
    drawn = [line for line in got.err.splitlines() if line.startswith("####")]
    assert len(drawn) >= 25
    assert {len(line) for line in drawn} == {2 * len(drawn)}


def test_up_qr_is_refused_before_anything_is_done(mesh, localapi, monkeypatch) -> None:
    """CL-07: without the package, or with an unknown format, nothing has been changed."""
    got = mesh("up", "--qr", "--qr-format=tiny")
    assert (got.code, got.err) == (1, 'unknown QR code format "tiny": auto, ascii, large, small\n')
    monkeypatch.setitem(__import__("sys").modules, "segno", None)
    got = mesh("up", "--qr")
    assert (got.code, got.err) == (1, "QR codes need the package segno: pip install segno\n")
    assert localapi.backend.calls == []


def test_qr_formats_show_the_same_code() -> None:
    pytest.importorskip("segno")
    from meshd.cli.qr import draw, png

    large = draw("http://x/y", "large").splitlines()
    small = draw("http://x/y", "auto").splitlines()
    assert draw("http://x/y", "auto", unicode=False) == draw("http://x/y", "ascii")
    assert len(small) == (len(large) + 1) // 2
    for index, line in enumerate(small):
        upper = [cell == "\N{FULL BLOCK}" for cell in large[2 * index][::2]]
        assert [cell in "\N{FULL BLOCK}\N{UPPER HALF BLOCK}" for cell in line] == upper
    assert png("http://x/y").startswith("data:image/png;base64,")


def test_up_at_a_terminal_says_that_it_waits(mesh, localapi, monkeypatch) -> None:
    """out:progress: progress for anything that takes more than a second, for people only."""
    monkeypatch.setattr("meshd.cli.upwait.at_terminal", lambda: True)
    monkeypatch.setattr("meshd.cli.upwait.PATIENCE_S", 0.02)
    localapi.backend.next_state_after_start = "Starting"
    localapi.backend.state = "NeedsLogin"
    got = mesh("up", SERVER, "--reset", "--auth-key=k", "--timeout=100ms")
    assert got.code == 1
    assert got.err.startswith("# Waiting for the coordination server ...\ntimeout waiting for meshd")


def test_up_at_a_terminal_goes_on_after_it_has_said_that_it_waits(mesh, localapi, monkeypatch) -> None:
    """U-7: a login by page takes more than a second."""
    monkeypatch.setattr("meshd.cli.upwait.at_terminal", lambda: True)
    monkeypatch.setattr("meshd.cli.upwait.PATIENCE_S", 0.02)
    fresh(localapi)
    node = localapi.backend
    node.login_url_after_start = LOGIN_URL

    def finish() -> None:
        asyncio.get_running_loop().call_later(0.2, node.enter, "Running")

    when_waiting(localapi, finish)
    got = mesh("up", SERVER, "--timeout=20s")
    assert (got.code, got.err) == (0, f"\nTo authenticate, visit:\n\n\t{LOGIN_URL}\n\nSuccess.\n")


EVERY_FLAG = [
    (["--accept-routes"], {"RouteAll": True}),
    (["--accept-dns=false"], {"CorpDNS": False}),
    (["--shields-up"], {"ShieldsUp": True}),
    (["--ssh"], {"RunSSH": True}),
    (["--hostname=x"], {"Hostname": "x"}),
    (["--operator=ann"], {"OperatorUser": "ann"}),
    (["--advertise-routes=10.2.0.0/16,10.1.0.0/16"], {"AdvertiseRoutes": ["10.1.0.0/16", "10.2.0.0/16"]}),
    (["--advertise-exit-node"], {"AdvertiseRoutes": ["0.0.0.0/0", "::/0"]}),
    (["--advertise-connector"], {"AppConnector": {"Advertise": True}}),
    (["--advertise-tags=a,tag:b"], {"AdvertiseTags": ["tag:a", "tag:b"]}),
    (["--snat-subnet-routes=false"], {"NoSNAT": True}),
    (["--stateful-filtering"], {"NoStatefulFiltering": False}),
    (["--netfilter-mode=off"], {"NetfilterMode": 0}),
    (["--netfilter-mode=nodivert"], {"NetfilterMode": 1}),
    (["--report-posture"], {"PostureChecking": True}),
    (["--posture-checking"], {"PostureChecking": True}),
    (["--exit-node=auto:any", "--exit-node-allow-lan-access"], {"AutoExitNode": "any", "ExitNodeAllowLANAccess": True}),
]


@pytest.mark.parametrize(("words", "wanted"), EVERY_FLAG, ids=lambda value: " ".join(value))
def test_up_sets_the_preference_of_every_flag(mesh, localapi, words: list[str], wanted: dict[str, object]) -> None:
    """cli:up --accept-routes, cli:up --shields-up, cli:up --advertise-routes, cli:up --operator,
    cli:up --snat-subnet-routes, cli:up --report-posture: all preferences at the first login, with these changed."""
    fresh(localapi)
    assert mesh("up", SERVER, "--auth-key=k", "--timeout=5s", *words).code == 0
    sent = calls(localapi, "start")[0][1]["UpdatePrefs"]
    assert {name: sent[name] for name in wanted} == wanted
    fresh(localapi)
    localapi.backend.calls.clear()
    assert mesh("up", SERVER, "--reset", "--auth-key=k", "--timeout=5s").code == 0
    plain = calls(localapi, "start")[0][1]["UpdatePrefs"]
    assert {name for name in sent if sent[name] != plain[name]} == set(wanted)


def test_up_over_the_mesh_asks_before_it_cuts_the_session(mesh, localapi, monkeypatch) -> None:
    """U-8: a change of who answers SSH, and another login, are asked for; elsewhere nobody asks."""
    monkeypatch.setenv("SSH_CLIENT", "100.64.0.1 5000 22")
    for words in (["--ssh"], ["--force-reauth"]):
        got = mesh("up", SERVER, *words)
        assert (got.code, got.err) == (1, "aborted, no changes made\n"), words
        assert calls(localapi, "edit_prefs") + calls(localapi, "start") == []
    assert mesh("up", SERVER, "--ssh", "--accept-risk=lose-ssh").code == 0
    localapi.backend.stored["RunSSH"] = False
    monkeypatch.setenv("SSH_CLIENT", "192.0.2.1 5000 22")
    assert mesh("up", SERVER, "--ssh").code == 0
