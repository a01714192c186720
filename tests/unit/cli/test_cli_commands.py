"""The commands against a fake node: what they print, what they ask for, how they end."""

from __future__ import annotations

import json

import pytest

from meshd.testing.fakebackend import DEFAULT_PREFS, PEER_KEY, peer_status


def test_status_running_prints_self_and_peers(mesh) -> None:
    """Columns and traffic text of `status`."""
    got = mesh("status")
    assert got.code == 0
    assert got.out == (
        "100.64.0.2  node-b  bench  linux  -                                                          \n"
        "100.64.0.1  node-a  bench  linux  active; direct 10.99.0.11:41641, tx 1319172 rx 1126176868  \n"
    )


def test_status_health_is_listed(mesh, localapi) -> None:
    localapi.backend.health = ["not in map poll"]
    assert mesh("status", "--peers=false").out == (
        "100.64.0.2  node-b  bench  linux  -  \n\n# Health check:\n#     - not in map poll\n"
    )


def test_status_not_running_exits_1(mesh, localapi) -> None:
    localapi.backend.state = "Stopped"
    got = mesh("status")
    assert (got.code, got.out) == (1, "meshd is stopped.\n")
    localapi.backend.state = "NeedsLogin"
    localapi.backend.auth_url = "http://x/y"
    got = mesh("status")
    assert (got.code, got.out) == (1, "Logged out.\nLog in at: http://x/y\n")


def test_status_json_is_the_routes_json(mesh, localapi) -> None:
    got = mesh("status", "--json")
    assert got.code == 0
    assert json.loads(got.out) == localapi.backend.status()
    assert got.out.startswith('{\n  "Version": ')
    active = json.loads(mesh("status", "-json", "--active").out)
    assert list(active["Peer"]) == [PEER_KEY]


def test_status_json_stopped_exits_0(mesh, localapi) -> None:
    localapi.backend.state = "Stopped"
    assert mesh("status", "--json").code == 0


def test_status_words_for_every_kind_of_peer() -> None:
    from meshd.cli.commands.status_command import activity

    idle = peer_status(Active=False, CurAddr="", RxBytes=0, TxBytes=0)
    assert activity(idle) == "-"
    assert activity(idle | {"Online": False}) == "offline"
    assert activity(idle | {"TxBytes": 1}) == "idle, tx 1 rx 0"
    assert activity(idle | {"ExitNodeOption": True}) == "idle; offers exit node"
    assert activity(idle | {"ExitNode": True, "Online": False}) == "idle; exit node; offline"
    busy = peer_status(RxBytes=0, TxBytes=0)
    assert activity(busy) == "active; direct 10.99.0.11:41641"
    assert activity(busy | {"CurAddr": ""}) == 'active; relay "test"'
    assert activity(busy | {"ExitNode": True, "Online": False}) == "active; exit node; direct 10.99.0.11:41641; offline"


def test_status_hostile_host_name_cannot_drive_the_terminal(mesh, localapi) -> None:
    """out:plain."""
    localapi.backend.peers[PEER_KEY] = peer_status(DNSName="evil\x1b[2J.mesh.test.", OS="li\nnux")
    got = mesh("status")
    assert "\x1b" not in got.out
    assert len(got.out.splitlines()) == 2


def test_ip_variants(mesh) -> None:
    assert mesh("ip").out == "100.64.0.2\nfd7a:115c:a1e0::2\n"
    assert mesh("ip", "-4").out == "100.64.0.2\n"
    assert mesh("ip", "-6").out == "fd7a:115c:a1e0::2\n"
    assert mesh("ip", "-1").out == "100.64.0.2\n"
    assert mesh("ip", "node-a").out == "100.64.0.1\nfd7a:115c:a1e0::1\n"
    assert mesh("ip", "NODE-A.mesh.test.").out == "100.64.0.1\nfd7a:115c:a1e0::1\n"
    assert mesh("ip", "--assert=100.64.0.2").code == 0
    assert mesh("ip", "--assert=100.64.0.9").code == 1


def test_ip_refusals(mesh, localapi) -> None:
    got = mesh("ip", "-4", "-6")
    assert (got.code, got.err) == (1, "mesh ip -1, -4, and -6 are mutually exclusive\n")
    assert mesh("ip", "100.64.0.77").err == "no peer found with IP 100.64.0.77\n"
    localapi.backend.state = "NeedsLogin"
    got = mesh("ip")
    assert (got.code, got.err) == (1, "no current Tailscale IPs; state: NeedsLogin\n")


def test_ping_kinds(mesh, localapi) -> None:
    assert mesh("ping", "--c", "1", "100.64.0.1").out == "pong from node-a (100.64.0.1) via 10.99.0.11:41641 in 12ms\n"
    assert mesh("ping", "--c=1", "--tsmp", "node-a").out == "pong from node-a (100.64.0.1, 58436) via TSMP in 12ms\n"
    assert mesh("ping", "--c", "1", "--icmp", "node-a").out == "pong from node-a (100.64.0.1) via ICMP in 12ms\n"
    assert mesh("ping", "--peerapi", "node-a").out == (
        "hit peerapi of 100.64.0.1 (node-a.mesh.test.) at http://100.64.0.1:58436 in 12ms\n"
    )
    assert mesh("ping", "--size=1000", "node-a").code == 0
    assert ("ping", "100.64.0.1", "disco", 1000) in localapi.backend.calls


def test_ping_relay_then_gives_up(mesh, localapi) -> None:
    localapi.backend.ping_answer = {"Endpoint": "", "DERPRegionID": 900, "DERPRegionCode": "test"}
    got = mesh("ping", "--c=1", "100.64.0.1")
    assert (got.code, got.out) == (1, "pong from node-a (100.64.0.1) via DERP(test) in 12ms\n")
    assert got.err == "direct connection not established\n"
    assert mesh("ping", "--c=1", "--until-direct=false", "100.64.0.1").code == 0


def test_ping_own_address(mesh) -> None:
    assert mesh("ping", "node-b").out == "100.64.0.2 is local Tailscale IP\n"
    assert mesh("ping", "100.64.0.2").code == 0


def test_ping_failures(mesh, localapi) -> None:
    got = mesh("ping", "--c", "1", "100.99.99.99")
    assert (got.code, got.err) == (1, "no matching peer\n")
    assert mesh("ping").err == "usage: mesh ping <hostname-or-IP>\n"
    localapi.backend.ping_answer = None
    got = mesh("ping", "--c=1", "--timeout=20ms", "100.64.0.1")
    assert (got.code, got.out, got.err) == (1, 'ping "100.64.0.1" timed out\n', "no reply\n")
    localapi.backend.state = "Stopped"
    got = mesh("ping", "100.64.0.1")
    assert (got.code, got.out) == (1, "meshd is stopped.\n")


def test_whois(mesh) -> None:
    assert mesh("whois", "100.64.0.1").out == (
        "Machine:\n"
        "  Name:          node-a.mesh.test\n"
        "  ID:            1\n"
        "  Addresses:     [100.64.0.1/32 fd7a:115c:a1e0::1/128]\n"
        "User:\n"
        "  Name:     bench\n"
        "  ID:       1\n"
    )
    assert json.loads(mesh("whois", "--json", "100.64.0.1").out)["Node"]["ID"] == 1
    got = mesh("whois", "100.99.99.99")
    assert (got.code, got.err) == (1, "peer not found\n")
    got = mesh("whois", "node-a")
    assert (got.code, got.err) == (1, "400 Bad Request: invalid 'addr' parameter\n")
    assert mesh("whois").err == "missing argument, expected one peer\n"


def test_version(mesh) -> None:
    """CL-01."""
    assert mesh("version").out.startswith("0.1.0\n")
    assert json.loads(mesh("version", "--json").out)["cap"] == 113
    assert "\nDaemon: 0.1.0-meshd\n" in mesh("version", "--daemon").out
    assert mesh("-V").out == mesh("version").out


def test_get_lists_settings(mesh) -> None:
    got = mesh("get")
    assert got.out.startswith("NAME                           VALUE\naccept-dns                     true\n")
    assert mesh("get", "accept-routes").out == "false\n"
    assert json.loads(mesh("get", "--json").out)["netfilter-mode"] == "on"
    assert "--accept-dns --accept-routes=false " in mesh("get", "--set-flags").out
    got = mesh("get", "nosuch")
    assert (got.code, got.err) == (1, 'unknown setting "nosuch"; see "mesh set --help" for valid settings\n')


def test_set_sends_only_what_is_named(mesh, localapi) -> None:
    assert mesh("set", "--hostname=x", "--shields-up", "--update-check=false").code == 0
    assert localapi.backend.calls[-1] == (
        "edit_prefs",
        {
            "Hostname": "x",
            "HostnameSet": True,
            "ShieldsUp": True,
            "ShieldsUpSet": True,
            "AutoUpdate": {"Check": False},
            "AutoUpdateSet": {"CheckSet": True},
        },
    )


@pytest.mark.parametrize(
    ("flag", "pref", "value"),
    [
        ("--webclient", "RunWebClient", True),
        ("--relay-server-port=0", "RelayServerPort", 0),
        ("--relay-server-static-endpoints=[2001:db8::1]:4,192.0.2.1:4", "RelayServerStaticEndpoints", None),
    ],
)
def test_set_keeps_what_has_no_effect_and_says_so(mesh, localapi, flag: str, pref: str, value: object) -> None:
    got = mesh("set", flag)
    assert got.code == 0
    assert "has no effect" in got.out + got.err
    sent = localapi.backend.calls[-1][1]
    assert sent[pref + "Set"]
    assert sent[pref] == (["192.0.2.1:4", "[2001:db8::1]:4"] if value is None else value)
    name = flag[2:].partition("=")[0]
    got = mesh("set", f"--{name}=false" if value is True else f"--{name}=")
    assert "no effect" not in got.out + got.err
    assert localapi.backend.calls[-1][1][pref] in (None, False)


@pytest.mark.parametrize("flag", ["port=x", "port=65536", "static-endpoints=a"])
def test_set_bad_relay_server_is_refused(mesh, flag: str) -> None:
    got = mesh("set", f"--relay-server-{flag}")
    assert (got.code, got.err.startswith("failed to set relay server")) == (1, True)


def test_set_routes_keep_the_other_half(mesh, localapi) -> None:
    mesh("set", "--advertise-routes=10.1.0.0/24")
    mesh("set", "--advertise-exit-node")
    assert localapi.backend.stored["AdvertiseRoutes"] == ["10.1.0.0/24", "0.0.0.0/0", "::/0"]
    mesh("set", "--advertise-routes=")
    assert localapi.backend.stored["AdvertiseRoutes"] == ["0.0.0.0/0", "::/0"]
    mesh("set", "--advertise-exit-node=false")
    assert localapi.backend.stored["AdvertiseRoutes"] is None


def test_set_refusals(mesh, localapi) -> None:
    cases = {
        "--advertise-routes=10.1.0.1/24": "10.1.0.1/24 has non-address bits set; expected 10.1.0.0/24\n",
        "--advertise-routes=x": '"x" is not a valid IP address or CIDR prefix\n',
        "--exit-node=nosuch": 'invalid value "nosuch" for --exit-node; must be IP or peer hostname\n',
        "--exit-node=100.64.0.1": "node 100.64.0.1 is not advertising an exit node\n",
        "--netfilter-mode=x": 'invalid value --netfilter-mode="x"\n',
        "--hostname=bad": "hostname 'bad' is bad\n",
    }
    for flag, message in cases.items():
        got = mesh("set", flag)
        assert (got.code, got.err) == (1, message), flag
    assert not [call for call in localapi.backend.calls if call[0] == "edit_prefs"]


def test_set_exit_node_by_name(mesh, localapi) -> None:
    """INV-5, EX-01: in any letter case, with the dot at the end or without."""
    localapi.backend.peers[PEER_KEY]["ExitNodeOption"] = True
    for name in ("node-a", "NODE-A", "node-a.mesh.test", "Node-A.Mesh.Test."):
        assert mesh("set", f"--exit-node={name}").code == 0
        assert localapi.backend.stored["ExitNodeIP"] == "100.64.0.1"
        localapi.backend.stored["ExitNodeIP"] = ""
    assert mesh("set", "--exit-node=").code == 0
    assert localapi.backend.stored["ExitNodeIP"] == ""


def test_set_warns_people_when_the_host_does_not_forward(mesh, localapi, monkeypatch) -> None:
    localapi.backend.forwarding_warning = "IP forwarding is disabled"
    monkeypatch.setattr(localapi.backend, "check_udp_gro", lambda: "UDP is forwarded slowly")
    assert mesh("set", "--advertise-routes=10.1.0.0/24").out == ""
    monkeypatch.setattr("meshd.cli.commands.set_command.at_terminal", lambda: True)
    warnings = "Warning: IP forwarding is disabled\nWarning: UDP is forwarded slowly\n"
    assert mesh("set", "--advertise-routes=10.1.0.0/24").out == warnings


def test_up_warns_before_it_advertises_routes(mesh, localapi, monkeypatch) -> None:
    """U-7: what keeps the host from forwarding, and from forwarding fast; nothing without routes."""
    localapi.backend.forwarding_warning = "IP forwarding is disabled"
    monkeypatch.setattr(localapi.backend, "check_udp_gro", lambda: "UDP is forwarded slowly")
    got = mesh("up", "--login-server=http://control.test", "--advertise-routes=10.1.0.0/24")
    assert got.out == "Warning: IP forwarding is disabled\nWarning: UDP is forwarded slowly\n"
    assert mesh("up", "--reset", "--login-server=http://control.test").out == ""
    got = mesh("up", "--login-server=http://control.test", "--advertise-connector")
    assert got.out.startswith("Warning: IP forwarding is disabled\n")


def test_down_and_again(mesh, localapi) -> None:
    assert mesh("down").code == 0
    assert localapi.backend.state == "Stopped"
    got = mesh("down")
    assert (got.code, got.err) == (0, "meshd was already stopped.\n")


def test_down_over_the_mesh_asks_first(mesh, localapi, monkeypatch) -> None:
    """U-8: losing one's own SSH session needs a yes."""
    monkeypatch.setenv("SSH_CLIENT", "100.64.0.1 5000 22")
    got = mesh("down")
    assert (got.code, got.err) == (1, "aborted, no changes made\n")
    assert localapi.backend.state == "Running"
    assert mesh("down", "--accept-risk=lose-ssh").code == 0


def test_logout(mesh, localapi) -> None:
    assert mesh("logout").code == 0
    assert localapi.backend.state == "NeedsLogin"


def test_switch_list_and_errors(mesh, localapi) -> None:
    assert mesh("switch", "--list").out == "ID    Tailnet    Account\ndf87  10.99.0.1  bench*\n"
    assert json.loads(mesh("switch", "--list", "--json").out)[0]["selected"] is True
    got = mesh("switch", "nosuch")
    assert (got.code, got.err) == (1, 'No profile named "nosuch"\n')
    assert mesh("switch").code == 1
    assert mesh("switch", "bench").out == 'Already on account "bench"\n'
    localapi.backend.current = ""
    assert mesh("switch", "bench").out == 'Switching to account "bench"\nSuccess.\n'


def test_netcheck_formats(mesh) -> None:
    assert mesh("netcheck").out == (
        "\nReport:\n\t* Time: 2026-11-23 09:18:05.243100655Z\n\t* UDP: true\n\t* IPv4: yes, 10.99.0.12:36245\n"
        "\t* IPv6: no, but OS has support\n\t* MappingVariesByDestIP: \n\t* PortMapping: not checked\n"
        "\t* Nearest DERP: Test\n\t* DERP latency:\n\t\t- test: 200µs   (Test)\n"
    )
    assert json.loads(mesh("netcheck", "--format=json").out)["PreferredDERP"] == 900
    assert json.loads(mesh("netcheck", "--format", "json-line").out)["UDP"] is True
    assert mesh("netcheck", "--format=x").code == 1


def test_netcheck_from_an_address(mesh, localapi) -> None:
    """cli:netcheck --bind-address, --bind-port: only what is given is asked for."""
    assert mesh("netcheck", "--bind-address=127.0.0.1").code == 0
    assert mesh("netcheck", "--bind-port=4000").code == 0
    assert [call for call in localapi.backend.calls if call[0] == "netcheck"] == [
        ("netcheck", "127.0.0.1", 0),
        ("netcheck", "None", 4000),
    ]


def test_access_denied_says_how_to_get_access(mesh, localapi, monkeypatch) -> None:
    """CL-04: the text names sudo and --operator, and no secret."""
    monkeypatch.setattr("os.getuid", lambda: 1000)
    localapi.uid = 1000
    got = mesh("up", "--auth-key=tskey-secret", "--reset", "--login-server=http://control.test")
    assert got.code == 1
    assert got.err.startswith("Access denied: ")
    assert "Use 'sudo mesh up --auth-key=... --reset " in got.err
    assert "tskey-secret" not in got.err


def test_prefs_shape_of_the_fake_is_the_recorded_one() -> None:
    """Guards the fake: a key missing here would hide a key missing in the daemon."""
    from pathlib import Path

    recorded = json.loads(Path("tests/vectors/localapi_recorded.json").read_text())
    prefs = next(r for r in recorded["requests"] if r["path"] == "prefs" and r["status"] == 200)
    assert set(DEFAULT_PREFS) == set(prefs["response"])


def test_status_health_with_a_hint_keeps_its_lines(mesh, localapi) -> None:
    localapi.backend.state = "NoState"
    localapi.backend.health = ["cannot connect\nCheck \x1b[1mthe server."]
    got = mesh("status")
    assert got.code == 1
    assert got.out == (
        "# Health check:\n#     - cannot connect\n#       Check \N{REPLACEMENT CHARACTER}[1mthe server.\n\n"
        "meshd has not joined its network yet.\n"
    )
