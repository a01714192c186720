"""What lists and reports look like, in a terminal and elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meshd.cli.client import LocalClient
from meshd.cli.progress import progress
from meshd.testing.fakebackend import PEER_KEY, peer_status


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def peer(number: int, **changes: object) -> dict[str, object]:
    return peer_status(
        ID=str(number), NodeID=number, PublicKey=f"nodekey:{number:064x}", TailscaleIPs=[f"100.64.1.{number}"],
        HostName=f"host-{number}", DNSName=f"n{number}.mesh.test.", Active=False, CurAddr="", RxBytes=0, TxBytes=0,
    ) | changes  # fmt: skip


def give(localapi, *peers: dict[str, object]) -> None:
    localapi.backend.peers = {str(p["PublicKey"]): p for p in peers}


def test_status_columns_order_and_owners(mesh, localapi, monkeypatch) -> None:
    """out:status: by DNS name, then host name; users without their domain, nobody for tags, the sharer of what is
    shared."""
    users = {
        "1": {"ID": 1, "LoginName": "ann@example.com"},
        "2": {"ID": 2, "LoginName": "bob@example.com"},
        "3": {"ID": 3, "LoginName": "tagged-devices"},
    }
    original = localapi.backend.status
    monkeypatch.setattr(localapi.backend, "status", lambda *, peers=True: original(peers=peers) | {"User": users})
    give(
        localapi,
        peer(1, DNSName="zeta.mesh.test."),
        peer(2, DNSName="alpha.mesh.test.", UserID=2),
        peer(3, DNSName="", HostName="Beta Box", UserID=0),
        peer(4, DNSName="shared.other.test.", AltSharerUserID=2),
        peer(5, DNSName="hidden.mesh.test.", ShareeNode=True),
        peer(6, DNSName="xn--bcher-kva.mesh.test."),
        peer(7, DNSName="tagged.mesh.test.", UserID=3),
    )
    shown = mesh("status", "--self=false").out
    assert [row[:3] for row in rows(shown)] == [
        ["100.64.1.3", '("beta-box")', "-"],
        ["100.64.1.2", "alpha", "bob@"],
        ["100.64.1.4", "shared.other.test", "bob@"],
        ["100.64.1.7", "tagged", "tagged-devices"],
        ["100.64.1.6", "xn--bcher-kva", "(b\u00fccher)"],
        ["100.64.1.1", "zeta", "ann@"],
    ]
    assert rows(mesh("status", "--header").out)[0] == ["IP", "Hostname", "Owner", "OS", "Status"]
    assert mesh("status", "--peers=false").out.count("\n") == 1
    assert mesh("status", "--active", "--self=false").out == ""


def test_status_of_located_exit_nodes_and_of_what_the_internet_reaches(mesh, localapi, monkeypatch) -> None:
    """out:status: nodes of a location only when chosen; what a funnel opens is listed at the end."""
    located = peer(1, DNSName="ch-zrh-1.mullvad.ts.net.", ExitNodeOption=True)
    give(localapi, located)
    shown = mesh("status", "--self=false").out
    assert "mullvad" not in shown
    assert "# To see the full list of exit nodes" in shown
    give(localapi, located | {"ExitNode": True})
    shown = mesh("status", "--self=false").out
    assert "idle; exit node" in shown
    assert "full list" not in shown
    config = {"AllowFunnel": {"a.mesh.test:443": True, "a.mesh.test:8443": True, "b:1": False}}
    original = LocalClient.json

    def answer(self, method: str, name: str, **more: object):
        return config if name == "serve-config" else original(self, method, name, **more)

    monkeypatch.setattr(LocalClient, "json", answer)
    tail = "\n# Funnel on:\n#     - https://a.mesh.test\n#     - https://a.mesh.test:8443\n\n"
    assert mesh("status", "--self=false").out.endswith(tail)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("Stopped", "meshd is stopped.\n"),
        ("NeedsLogin", "Logged out.\n"),
        ("NeedsMachineAuth", "Machine is not yet approved by the admin of the network.\n"),
        ("NoState", "meshd has not joined its network yet.\n"),
    ],
)
def test_status_of_a_node_that_does_not_run(mesh, localapi, state: str, text: str) -> None:
    """out:status: one line and exit 1, but exit 0 as JSON."""
    localapi.backend.state = state
    got = mesh("status")
    assert (got.code, got.out) == (1, text)
    assert mesh("status", "--json").code == 0
    localapi.backend.state = "Starting"
    assert mesh("status").code == 0


def test_whois_of_a_tagged_node_with_capabilities(mesh_to_stub, stub) -> None:
    """out:whois, cli:whois: tags instead of a user, routes, what the peer may do here; the protocol is passed on."""
    node = {
        "Name": "n.mesh.test.", "StableID": "n7", "Addresses": ["100.64.0.7/32"], "Tags": ["tag:web", "tag:db"],
        "AllowedIPs": ["100.64.0.7/32", "fd7a::7/128", "10.1.0.0/16"],
    }  # fmt: skip
    found = {"Node": node, "UserProfile": {"ID": 1}, "CapMap": {"example.com/cap": [{"a": 1}], "plain": None}}
    stub.says("GET whois", found)
    got = mesh_to_stub("whois", "--proto=udp", "100.64.0.7:53")
    assert stub.asked() == ["GET whois?addr=100.64.0.7%3A53&proto=udp"]
    assert got.out == (
        "Machine:\n"
        "  Name:           n.mesh.test\n"
        "  ID:             n7\n"
        "  Addresses:      [100.64.0.7/32]\n"
        "  AllowedIPs:     [10.1.0.0/16]\n"
        "  Tags:           tag:web, tag:db\n"
        "Capabilities:\n"
        "  - example.com/cap:\n"
        '      [\n        {\n          "a": 1\n        }\n      ]\n'
        "  - plain\n"
    )


def test_netcheck_report_of_a_host_without_udp(mesh, localapi, monkeypatch) -> None:
    """out:netcheck: what is not known is said so; regions by latency, those without one at the end."""

    async def report(bound: object = None) -> dict[str, object]:
        return {"Now": "2026-01-01T00:00:00Z", "UDP": False, "IPv6": True, "OSHasIPv6": True, "PMP": True,
                "UPnP": False, "MappingVariesByDestIP": True, "PreferredDERP": 7, "CaptivePortal": False,
                "RegionLatency": {"900": 5_000_000}}  # fmt: skip

    regions = {"900": {"RegionCode": "t", "RegionName": "T"}, "901": {"RegionCode": "u", "RegionName": "U\x1b"}}
    monkeypatch.setattr(localapi.backend, "netcheck", report)
    monkeypatch.setattr(localapi.backend, "derp_map", lambda: {"Regions": regions})
    lines = mesh("netcheck", "--verbose").out.splitlines()
    assert lines[3:] == [
        "\t* UDP: false",
        "\t* IPv4: (no addr found)",
        "\t* IPv6: (no addr found)",
        "\t* MappingVariesByDestIP: true",
        "\t* PortMapping: NAT-PMP",
        "\t* CaptivePortal: false",
        "\t* Nearest DERP: 7 (region not found in map)",
        "\t* DERP latency:",
        "\t\t-   t: 5ms     (derp900, T)",
        "\t\t-   u:         (derp901, U\N{REPLACEMENT CHARACTER})",
    ]


def test_netcheck_every_repeats(mesh, localapi, monkeypatch) -> None:
    """cli:netcheck --every: until it is interrupted."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("meshd.cli.commands.netcheck_command.time.sleep", sleep)
    got = mesh("netcheck", "--every=10s", "--format=json-line")
    assert got.code == 130
    assert [json.loads(line)["PreferredDERP"] for line in got.out.splitlines()] == [900] * 3
    assert pauses == [10.0] * 3


def test_version_json_names_what_scripts_read(mesh) -> None:
    """out:version, cli:version: short and long, of the daemon too when asked."""
    shown = json.loads(mesh("version", "--json", "--daemon").out)
    assert set(shown) == {"majorMinorPatch", "short", "long", "daemonLong", "cap"}
    lines = mesh("version").out.splitlines()
    assert (lines[0], len(lines)) == (shown["short"], 3)
    assert all(line.startswith("  ") for line in lines[1:])


def test_switch_finds_profiles_by_all_their_names(mesh, localapi) -> None:
    """out:switch, cli:switch: by ID, network, account or own name; a node that has to log in ends well."""
    other = {
        "ID": "ab12", "Name": "work", "NetworkProfile": {"DomainName": "corp.test"}, "Key": "profile-ab12",
        "UserProfile": {"ID": 2, "LoginName": "ann@corp.test"}, "NodeID": "", "LocalUserID": "", "ControlURL": "",
    }  # fmt: skip
    localapi.backend.profile_list.append(other)
    listed = sorted(rows(mesh("switch", "--list").out)[1:])
    assert listed == [["ab12", "corp.test", "work"], ["df87", "10.99.0.1", "bench*"]]
    for name in ("ab12", "corp.test", "ann@corp.test", "work"):
        localapi.backend.current = "df87"
        got = mesh("switch", name)
        assert (got.code, got.out) == (0, f'Switching to account "{name}"\nSuccess.\n')
        assert localapi.backend.current == "ab12"
    assert mesh("switch", "remove", "work").code == 0
    assert ("delete_profile", "ab12") in localapi.backend.calls
    assert mesh("switch", "remove", "nosuch").code == 1


# -- terminals ---------------------------------------------------------------------------------------------------


def test_progress_is_for_terminals_and_goes_away(monkeypatch, capsys) -> None:
    """out:progress: after a second, on stderr, wiped at the end; never into a file or a pipe."""
    monkeypatch.setattr("meshd.cli.progress.PATIENCE_S", 0.01)
    with progress("probing"):
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("meshd.cli.progress.at_terminal", lambda: True)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("probing"):
        assert terminal.told.wait(30)
    assert "probing (1 s)" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    """A stderr that says when something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def flush(self) -> None:
        self.told.set()


COMMANDS = [
    ["status"], ["status", "--json"], ["status", "--header"], ["ip"], ["netcheck"], ["whois", "100.64.0.1"], ["get"],
    ["version"], ["switch", "--list"], ["ping", "--c=1", "node-a"], ["debug", "prefs"], ["metrics", "print"],
    ["exit-node", "list"], ["dns", "status"], ["lock", "status"], ["service", "list"], ["--help"], ["up", "--help"],
]  # fmt: skip


def _plain(localapi, words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "meshd.cli.main", f"--socket={localapi.path}", *words]
    clean = {name: value for name, value in os.environ.items() if name not in ("SSH_CLIENT", "PYTHONIOENCODING")}
    return subprocess.run(command, capture_output=True, check=False, env=clean | env, timeout=30)


def _run(localapi, words: list[str], terminal: bool) -> tuple[int, str]:
    command = [sys.executable, "-m", "meshd.cli.main", f"--socket={localapi.path}", *words]
    env = {name: value for name, value in os.environ.items() if name != "SSH_CLIENT"}
    if not terminal:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=30)
        return done.returncode, done.stdout + done.stderr
    ours, theirs = pty.openpty()
    try:
        running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the last writer is gone
                break
            if not piece:
                break
            text += piece
        return running.wait(30), text.decode()
    finally:
        os.close(ours)


def test_output_elsewhere_than_a_terminal_has_no_control_characters(localapi) -> None:
    """out:plain: whatever is read by a program is lines of text, also when a peer is called otherwise."""
    localapi.backend.peers[PEER_KEY] = peer_status(DNSName="evil\x1b]0;x\x07.mesh.test.", OS="\x9b31m")
    localapi.backend.health = ["bad\x1b[31m"]
    for words in COMMANDS:
        _, text = _run(localapi, words, terminal=False)
        controls = {c for c in text if not c.isprintable() and c not in "\n\t"}
        assert controls == set(), words


def test_output_in_a_terminal_is_the_same_text(localapi) -> None:
    """out:plain: what is quick looks the same everywhere, so that what was seen can be parsed."""
    for words in (["status"], ["ip"], ["get"], ["version"], ["switch", "--list"]):
        code, piped = _run(localapi, words, terminal=False)
        seen, shown = _run(localapi, words, terminal=True)
        assert (seen, shown.replace("\r\n", "\n")) == (code, piped), words


_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_output_of_an_ascii_locale_is_whole(localapi) -> None:
    """out:plain: what the locale cannot show is written as an escape; JSON stays JSON."""
    localapi.backend.peers[PEER_KEY] = peer_status(HostName="b\xfccher \U0001f600", OS="\u2026")
    for words in (["netcheck"], ["netcheck", "--help"], ["status"]):
        done = _plain(localapi, words, _ASCII)
        assert (done.returncode, done.stderr) == (0, b""), words
        assert done.stdout.isascii()
    for words in (["status", "--json"], ["status", "--json", "--active"]):
        shown = json.loads(_plain(localapi, words, _ASCII).stdout.decode("ascii"))
        assert shown["Peer"][PEER_KEY]["HostName"] == "b\xfccher \U0001f600", words


@pytest.mark.parametrize(
    "words", [["whois", "\udcff"], ["dns", "query", "\udcff"], ["bugreport", "\udcff"], ["set", "--hostname=\udcff"]]
)
def test_argument_that_is_no_text_is_named(localapi, words: list[str]) -> None:
    """CL-02: no report of a bug."""
    done = _plain(localapi, words, {})
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"mesh: an argument is no text in UTF-8, with \\xff in it\n"


def test_output_into_a_pipe_comes_line_by_line(localapi) -> None:
    """cli:ping: `mesh ping -c 0 node | tee log` shows every answer when it comes."""
    command = [sys.executable, "-m", "meshd.cli.main", f"--socket={localapi.path}", "ping", "--c=0"]
    command += ["--until-direct=false", "node-a"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdout is not None
        try:
            assert select.select([running.stdout], [], [], 20)[0]  # a buffer would be full after minutes
            assert running.stdout.readline().startswith(b"pong from")
        finally:
            running.kill()


def test_output_disk_that_is_full_is_an_error(localapi) -> None:
    """CL-02: exit 1 and a sentence when what was asked for could not be written."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    command = [sys.executable, "-m", "meshd.cli.main", f"--socket={localapi.path}", "ip"]
    with full.open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_routecheck_lists_routes_with_a_choice(mesh_to_stub, stub) -> None:
    """cli:routecheck: a route with one router is left out; a daemon that has not enabled it says so."""
    nodes = [
        {"id": 2, "name": "b.mesh.test.", "addr": "100.64.0.2", "routes": ["10.0.0.0/8", "10.1.0.0/16"]},
        {"id": 1, "name": "a.mesh.test.", "addr": "100.64.0.1", "routes": ["10.0.0.0/8"]},
    ]
    stub.says("POST routecheck", {"done": "2026-01-01T00:00:00.123456789Z", "reachable": nodes})
    got = mesh_to_stub("routecheck", "--probe")
    assert stub.asked() == ["POST routecheck?probe=true"]
    assert "\nReachable routers at 2026-01-01 00:00:00Z:\n" in got.out
    assert rows(got.out)[3:] == [
        ["PREFIX", "IP", "HOSTNAME"],
        ["10.0.0.0/8", "100.64.0.1", "a.mesh.test"],
        ["10.0.0.0/8", "100.64.0.2", "b.mesh.test"],
    ]
    assert json.loads(mesh_to_stub("routecheck", "--json").out) == {
        "done": "2026-01-01T00:00:00.123456789Z",
        "routes": {"10.0.0.0/8": nodes[::-1]},
    }
    stub.says("POST routecheck", {"done": "2026-01-01T00:00:00Z", "reachable": None})
    assert json.loads(mesh_to_stub("routecheck", "--json").out)["routes"] == {}
    assert mesh_to_stub("routecheck", "--format=json-line").out.count("\n") == 1
    stub.says("POST routecheck", b"", 204)
    assert mesh_to_stub("routecheck").err == "routecheck: report unavailable\n"
    stub.says("POST routecheck", b"routecheck is not enabled\n", 503)
    got = mesh_to_stub("routecheck")
    assert (got.code, got.err) == (1, "routecheck: 503 X: routecheck is not enabled\n")
