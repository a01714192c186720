"""Commands whose routes a stub daemon answers: what they print, what they ask for, how they end."""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path

import pytest

from meshd.cli.main import main
from meshd.testing.localapi import LocalApiThread
from tests.unit.cli.stubdaemon import StubDaemon

OWN = {"DNSName": "node-b.mesh.test.", "TailscaleIPs": ["100.64.0.2", "fd7a:115c:a1e0::2"]}
STATUS = {
    "BackendState": "Running",
    "TUN": True,
    "TailscaleIPs": OWN["TailscaleIPs"],
    "MagicDNSSuffix": "mesh.test",
    "Self": OWN,
    "CurrentTailnet": {"Name": "10.99.0.1", "MagicDNSSuffix": "mesh.test", "MagicDNSEnabled": True},
    "Peer": {
        "nodekey:a": {
            "ID": "1",
            "DNSName": "node-a.mesh.test.",
            "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
            "sshHostKeys": ["ssh-ed25519 AAAA", "evil\nline"],
            "TaildropTarget": 1,
            "Online": True,
        },
    },
}


@pytest.fixture
def daemon(stub: StubDaemon) -> StubDaemon:
    stub.says("GET status", STATUS)
    stub.says("GET prefs", {"CorpDNS": True})
    return stub


def test_exit_node_list_without_any_exits_1(mesh_to_stub, daemon) -> None:
    got = mesh_to_stub("exit-node", "list")
    assert (got.code, got.out, got.err) == (1, "", "no exit nodes found\n")


def test_exit_node_list_shows_the_best_of_every_city(mesh_to_stub, daemon) -> None:
    """out:exit-node list."""

    def node(name: str, country: str = "", city: str = "", priority: int = 0, **more: object) -> dict[str, object]:
        location = {"Country": country, "City": city, "Priority": priority} if country else None
        return {"DNSName": f"{name}.x.", "TailscaleIPs": ["100.64.1.1"], "ExitNodeOption": True, "Online": True} | {
            "Location": location,
            **more,
        }

    nodes = [
        node("own"),
        node("zrh-1", "Switzerland", "Zurich", 1),
        node("zrh-2", "Switzerland", "Zurich", 9),
        node("gva-1", "Switzerland", "Geneva", 5, Online=False),
        node("ber-1", "Germany", "Berlin", 3, ExitNode=True, Active=True),
    ]
    daemon.says("GET status", STATUS | {"Peer": {str(n): peer for n, peer in enumerate(nodes)}})
    got = mesh_to_stub("exit-node", "list")
    rows = [line.split() for line in got.out.splitlines() if line.startswith(" ")]
    assert rows == [
        ["IP", "HOSTNAME", "COUNTRY", "CITY", "STATUS"],
        ["100.64.1.1", "own.x", "-", "-", "-"],
        ["100.64.1.1", "ber-1.x", "Germany", "Berlin", "selected"],
        ["100.64.1.1", "zrh-2.x", "Switzerland", "Any", "-"],
        ["100.64.1.1", "gva-1.x", "Switzerland", "Geneva", "offline"],
        ["100.64.1.1", "zrh-2.x", "Switzerland", "Zurich", "-"],
    ]
    filtered = mesh_to_stub("exit-node", "list", "--filter=switzerland").out
    assert "zrh-1.x" in filtered
    assert "ber-1.x" not in filtered
    got = mesh_to_stub("exit-node", "list", "--filter=Nowhere")
    assert (got.code, got.err) == (1, 'no exit nodes found for "Nowhere"\n')


def test_exit_node_suggest(mesh_to_stub, daemon) -> None:
    daemon.says("GET suggest-exit-node", {"ID": "", "Name": ""})
    assert mesh_to_stub("exit-node", "suggest").out == "No exit node suggestion is available.\n"
    daemon.says("POST suggest-exit-node?probe=true", {"ID": "n1", "Name": "node a"})
    got = mesh_to_stub("exit-node", "suggest", "--force-probe").out
    assert got.startswith("Suggested exit node: node a\n")
    assert "--exit-node='node a'`" in got


def test_dns_status_sections(mesh_to_stub, daemon) -> None:
    daemon.says(
        "GET dns-config",
        {"Resolvers": [{"Addr": "9.9.9.9"}], "Routes": {"corp.test": [{"Addr": "10.0.0.1"}]}, "Domains": ["mesh.test"]},
    )
    daemon.says("GET dns-osconfig", {"Nameservers": ["10.99.0.1"], "SearchDomains": [], "MatchDomains": []})
    got = mesh_to_stub("dns", "status").out
    assert "Tailscale DNS: enabled." in got
    assert "MagicDNS: enabled tailnet-wide (suffix = mesh.test)" in got
    assert "Resolvers (in preference order):\n  - 9.9.9.9\n" in got
    assert "  - corp.test                      -> 10.0.0.1\n" in got
    assert "Search Domains:\n  - mesh.test\n" in got
    assert "Nameservers:\n  - 10.99.0.1\n" in got
    assert "Certificate Domains" not in got
    assert (
        "Certificate Domains:\n  (no certificate domains are configured)" in mesh_to_stub("dns", "status", "--all").out
    )
    shown = json.loads(mesh_to_stub("dns", "status", "--json").out)
    assert shown["SplitDNSRoutes"] == {"corp.test": [{"Addr": "10.0.0.1"}]}
    assert shown["SystemDNS"]["Nameservers"] == ["10.99.0.1"]
    assert shown["CurrentTailnet"]["SelfDNSName"] == "node-b.mesh.test."
    assert "FallbackResolvers" not in shown


def test_dns_status_without_network_and_without_system(mesh_to_stub, daemon) -> None:
    daemon.says("GET dns-config", {})
    daemon.says("GET dns-osconfig", b"reading is not supported\n", 500)
    assert "not supported on this platform" in mesh_to_stub("dns", "status").out
    daemon.says("GET status", {"BackendState": "NeedsLogin"})
    daemon.says("GET prefs", {"CorpDNS": False})
    got = mesh_to_stub("dns", "status").out
    assert "Tailscale DNS: disabled." in got
    assert got.endswith("No tailnet information available; make sure you're logged in to a tailnet.\n")


def test_dns_status_for_a_user_without_rights_lacks_only_the_system(mesh_to_stub, daemon) -> None:
    """The resolvers of the host are not for every user to see; `tailscale` shows the rest, too."""
    daemon.says("GET dns-config", {"Resolvers": [{"Addr": "9.9.9.9"}]})
    daemon.says("GET dns-osconfig", b"dns-osconfig dump access denied\n", 403)
    got = mesh_to_stub("dns", "status")
    denied = "Access denied: dns-osconfig dump access denied"
    assert got.code == 0
    assert "Resolvers (in preference order):\n  - 9.9.9.9\n" in got.out
    assert f"  (failed to read system DNS configuration: {denied})\n" in got.out
    assert json.loads(mesh_to_stub("dns", "status", "--json").out)["SystemDNSError"] == denied


ANSWER = "AAGFgAABAAEAAAAABm5vZGUtYgRtZXNoBHRlc3QAAAEAAQZub2RlLWIEbWVzaAR0ZXN0AAABAAEAAAAFAARkQAAC"


def test_dns_query_answer(mesh_to_stub, daemon) -> None:
    daemon.says("GET dns-query", {"Bytes": ANSWER, "Resolvers": [{"Addr": "10.99.0.1"}]})
    got = mesh_to_stub("dns", "query", "node-b.mesh.test")
    assert got.out == (
        'DNS query for "node-b.mesh.test" (A) using internal resolver:\n\nForwarding to resolver: 10.99.0.1\n\n'
        "Response code: RCodeSuccess\n\n"
        "Name               TTL  Class      Type   Body\n"
        "----               ---  -----      ----   ----\n"
        "node-b.mesh.test.  5    ClassINET  TypeA  100.64.0.2\n\n"
    )
    assert "GET dns-query?name=node-b.mesh.test&type=A" in daemon.asked()
    shown = json.loads(mesh_to_stub("dns", "query", "--json", "node-b.mesh.test", "aaaa").out)
    assert shown["QueryType"] == "AAAA"
    assert shown["Answers"][0]["Body"] == "100.64.0.2"


def test_dns_query_failures(mesh_to_stub, daemon) -> None:
    refused = bytearray(base64.b64decode(ANSWER))
    refused[3] |= 3
    daemon.says("GET dns-query", {"Bytes": base64.b64encode(bytes(refused)).decode(), "Resolvers": []})
    got = mesh_to_stub("dns", "query", "x")
    assert got.code == 0
    assert "Response code: RCodeNameError\n\nNo answers were returned.\n" in got.out
    daemon.says("GET dns-query", {"Bytes": "AAAA"})
    assert mesh_to_stub("dns", "query", "x").err == "failed to parse DNS response: too short for a DNS message\n"
    daemon.says("GET dns-query", b"no resolver\n", 500)
    assert mesh_to_stub("dns", "query", "x").err == "failed to query DNS: 500 X: no resolver\n"


def test_lock_status_not_enabled(mesh_to_stub, daemon) -> None:
    """out:lock status."""
    key = "nlpub:" + "0a" * 32
    daemon.says("GET tka/status", {"Enabled": False, "PublicKey": key, "NodeKey": "nodekey:" + "1" * 64})
    text = f"Tailnet Lock is NOT enabled.\n\nThis node's tailnet-lock key: tlpub:{'0a' * 32}\n\n"
    assert mesh_to_stub("lock").out == mesh_to_stub("lock", "status").out == text
    assert json.loads(mesh_to_stub("lock", "status", "--json").out) == {
        "SchemaVersion": "1",
        "Enabled": False,
        "PublicKey": f"tlpub:{'0a' * 32}",
        "NodeKey": "nodekey:" + "1" * 64,
    }
    own = "the tailnet lock key of the current node must be one of the trusted keys during initialization\n"
    assert mesh_to_stub("lock", "init").err == own
    assert mesh_to_stub("lock", "add", key).err == "tailnet lock is not enabled\n"
    assert mesh_to_stub("lock", "add", "tlpub:xyz").err.startswith("parsing key 1: ")
    assert mesh_to_stub("lock", "log").err == "Tailnet Lock is not enabled\n"


def test_lock_status_enabled_and_locked_out(mesh_to_stub, daemon) -> None:
    """out:lock status."""
    key = "nlpub:" + "0a" * 32
    trusted = [{"Kind": "25519", "Votes": 2, "Key": key}]
    peers = [{"Name": "evil\x1b.x", "TailscaleIPs": ["100.64.0.9"], "StableID": "9", "NodeKey": "nodekey:ff"}]
    status = {"Enabled": True, "PublicKey": key, "NodeKey": "nodekey:11", "NodeKeySigned": False}
    daemon.says("GET tka/status", status | {"TrustedKeys": trusted, "FilteredPeers": peers})
    got = mesh_to_stub("lock").out
    assert "LOCKED OUT" in got
    assert f"mesh lock sign nodekey:11 tlpub:{'0a' * 32}" in got
    assert f"\ttlpub:{'0a' * 32}\t2\t(self)\n" in got
    assert "\x1b" not in got
    daemon.says("POST tka/modify", b"", 204)
    assert mesh_to_stub("lock", "add", key + "?3").code == 0
    sent = json.loads(daemon.requests[-1].body)
    assert "cannot remove the last trusted signing key" in mesh_to_stub("lock", "remove", key).err
    daemon.says("GET tka/status", status | {"TrustedKeys": trusted * 2})
    assert "--re-sign=false" in mesh_to_stub("lock", "remove", key).err
    assert mesh_to_stub("lock", "remove", "--re-sign=false", key).code == 0
    assert json.loads(daemon.requests[-1].body)["AddKeys"] is None
    assert sent["AddKeys"] == [{"Kind": 1, "Votes": 3, "Public": base64.b64encode(b"\x0a" * 32).decode()}]


def test_serve_status_shows_what_is_served(mesh_to_stub, daemon) -> None:
    """out:serve status."""
    daemon.says("GET serve-config", None)
    assert mesh_to_stub("serve", "status").out == mesh_to_stub("funnel", "status").out == "No serve config\n"
    assert mesh_to_stub("serve", "status", "--json").out == "{}\n"
    daemon.says(
        "GET serve-config",
        {
            "TCP": {"443": {"HTTPS": True}, "5432": {"TCPForward": "localhost:5432"}},
            "Web": {
                "node-b.mesh.test:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:3000"}, "/x": {"Text": "hi"}}}
            },
            "AllowFunnel": {"node-b.mesh.test:443": True},
        },
    )
    assert mesh_to_stub("serve", "status").out == (
        "\n# Funnel on:\n#     - https://node-b.mesh.test\n\n"
        "|-- tcp://node-b.mesh.test:5432 (tailnet only)\n"
        "|-- tcp://100.64.0.2:5432\n|-- tcp://[fd7a:115c:a1e0::2]:5432\n|--> tcp://localhost:5432\n\n"
        "https://node-b.mesh.test (Funnel on)\n"
        '|-- /  proxy http://127.0.0.1:3000\n|-- /x text  "hi"\n\n'
    )


def test_drive_list_and_its_refusal(mesh_to_stub, daemon) -> None:
    daemon.says("GET drive/shares", b"taildrive sharing not enabled\n", 403)
    got = mesh_to_stub("drive", "list")
    assert got.code == 1
    assert got.err.startswith("Access denied: taildrive sharing not enabled\n")
    daemon.says("GET drive/shares", [{"name": "docs", "path": "/srv/docs", "who": "me"}])
    assert mesh_to_stub("drive", "list").out == (
        "name    path         as\n----    ---------    --\ndocs    /srv/docs    me\n"
    )
    daemon.says("PUT drive/shares", b"", 201)
    assert mesh_to_stub("drive", "share", "docs", ".").out == 'Sharing "." as "docs"\n'
    assert json.loads(daemon.requests[-1].body) == {"name": "docs", "path": os.getcwd()}


def test_file_targets(mesh_to_stub, daemon) -> None:
    """cli:file cp."""
    node = {"Name": "node-a.mesh.test.", "Addresses": ["100.64.0.1/32"], "Online": True}
    daemon.says("GET file-targets", [{"Node": node}, {"Node": node | {"ComputedName": "c", "Online": False}}])
    assert mesh_to_stub("file", "cp", "--targets").out == "100.64.0.1\tnode-a\n100.64.0.1\tc\toffline\n"
    daemon.says("GET file-targets", None)
    assert mesh_to_stub("file", "cp", "--targets").out == ""


def test_file_cp_sends_the_file(mesh_to_stub, daemon, tmp_path: Path) -> None:
    """cli:file cp."""
    source = tmp_path / "a b.txt"
    source.write_bytes(b"x" * 100_000)
    daemon.says("PUT file-put/1/a%20b.txt", b"")
    got = mesh_to_stub("file", "cp", "--verbose", str(source), "node-a:")
    assert got.code == 0
    assert got.err.endswith('sent "a b.txt"\n')
    assert daemon.requests[-1].body == b"x" * 100_000
    daemon.says("PUT file-put/1/other", b"no\n", 403)
    got = mesh_to_stub("file", "cp", "--name=other", str(source), "[fd7a:115c:a1e0::1]:")
    assert (got.code, got.err.splitlines()[0]) == (1, "Access denied: no")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["x", "node-a"], "final argument to 'mesh file cp' must end in colon"),
        (["x", "fd7a:115c:a1e0::1:"], "an IPv6 literal must be written as [fd7a:115c:a1e0::1]"),
        (["x", "[node-a]:"], "unexpected brackets around target"),
        (["x", "100.64.0.77:"], "can't send to 100.64.0.77: unknown target; not in your Tailnet"),
        (["/", "node-a:"], "directories not supported"),
        (["/nosuch", "node-a:"], "cannot read /nosuch: No such file or directory"),
        (["a", "-", "node-a:"], "can't use '-' as STDIN file when providing filename arguments"),
        (["--name=x", "a", "b", "node-a:"], "can't use --name= with multiple files"),
    ],
)
def test_file_cp_refusals(mesh_to_stub, daemon, words: list[str], complaint: str) -> None:
    got = mesh_to_stub("file", "cp", *words)
    assert (got.code, got.err) == (1, complaint + "\n")


def test_file_cp_to_a_peer_that_takes_none(mesh_to_stub, daemon) -> None:
    peer = STATUS["Peer"]["nodekey:a"] | {"TaildropTarget": 8}
    daemon.says("GET status", STATUS | {"Peer": {"nodekey:a": peer}})
    got = mesh_to_stub("file", "cp", "x", "node-a:")
    assert got.err == "can't send to node-a: cannot send files: target is not advertising a file sharing API\n"


def test_file_get_moves_files_and_minds_what_is_there(mesh_to_stub, daemon, tmp_path: Path) -> None:
    """cli:file get, out:file get."""
    target = tmp_path / "in"
    target.mkdir()
    daemon.says("GET files/", [{"Name": "a.txt", "Size": 3}])
    daemon.says("GET files/a.txt", b"new")
    daemon.says("DELETE files/a.txt", b"", 204)
    got = mesh_to_stub("file", "get", "--verbose", str(target))
    assert got.out == f"wrote a.txt as {target}/a.txt (3 bytes)\nmoved 1/1 files\n"
    assert daemon.asked()[-1] == "DELETE files/a.txt"
    got = mesh_to_stub("file", "get", str(target))
    assert (got.code, got.err) == (1, "moved 0/1 files\n")
    assert f"refusing to overwrite file: {target}/a.txt exists" in got.out
    assert mesh_to_stub("file", "get", "--conflict=rename", str(target)).code == 0
    assert (target / "a (1).txt").read_bytes() == b"new"
    (target / "a.txt").write_bytes(b"old")
    assert mesh_to_stub("file", "get", "--conflict=overwrite", str(target)).code == 0
    assert (target / "a.txt").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "..", ""])
def test_file_get_hostile_name_stays_in_the_directory(mesh_to_stub, daemon, tmp_path: Path, name: str) -> None:
    """cli:file get."""
    target = tmp_path / "in"
    target.mkdir()
    daemon.says("GET files/", [{"Name": name, "Size": 3}])
    got = mesh_to_stub("file", "get", str(target))
    assert got.code == 1
    assert "refusing the file name" in got.out
    assert list(target.iterdir()) == []
    assert len(daemon.asked()) == 1


def test_cert_hints_and_errors(mesh_to_stub, daemon) -> None:
    usage = "Usage: mesh cert [flags] <domain>\n"
    hint = "HTTPS cert support is not enabled/configured for your tailnet.\n"
    assert mesh_to_stub("cert").err == usage + hint
    daemon.says("GET status", STATUS | {"CertDomains": ["node-b.mesh.test"]})
    assert mesh_to_stub("cert").err == usage + 'For domain, use "node-b.mesh.test".\n'
    daemon.says("GET cert/nope", b"invalid domain\n", 500)
    assert mesh_to_stub("cert", "nope").err == "500 X: invalid domain\n"


def test_cert_writes_key_and_certificates(mesh_to_stub, daemon, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = b"-----BEGIN EC PRIVATE KEY-----\nAA\n-----END EC PRIVATE KEY-----\n"
    certificate = b"-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n"
    daemon.says("GET cert/x.test", key + certificate)
    assert mesh_to_stub("cert", "x.test").out == "Wrote public cert to x.test.crt\nWrote private key to x.test.key\n"
    assert Path("x.test.crt").read_bytes() == certificate
    assert Path("x.test.key").read_bytes() == key
    assert Path("x.test.key").stat().st_mode & 0o777 == 0o600
    got = mesh_to_stub("cert", "x.test").out
    assert got == "Public cert unchanged at x.test.crt\nPrivate key unchanged at x.test.key\n"
    daemon.says("GET cert/x.test", certificate)
    assert mesh_to_stub("cert", "x.test").err == (
        "local meshd answered something else than a private key and its certificates\n"
    )


def test_whoami_adds_the_network(mesh_to_stub, daemon) -> None:
    found = {"Node": {"Name": "node-b.mesh.test.", "StableID": "2"}, "UserProfile": {"LoginName": "bench", "ID": 1}}
    daemon.says("GET whois?addr=100.64.0.2", found)
    got = mesh_to_stub("whoami").out
    assert "  Name:          node-b.mesh.test\n" in got
    assert got.endswith("Tailnet:\n  Name:                10.99.0.1\n  MagicDNS Suffix:     mesh.test\n")
    assert json.loads(mesh_to_stub("whoami", "--json").out)["CurrentTailnet"]["Name"] == "10.99.0.1"
    daemon.says("GET status", {"BackendState": "NeedsLogin"})
    assert mesh_to_stub("whoami").err == "no current Tailscale IP address; state: NeedsLogin\n"


def test_wait_until_running_and_usable(mesh_to_stub, daemon) -> None:
    daemon.says("GET watch-ipn-bus", b'{"State": 5}\n{"State": 6}\n')
    daemon.says("GET status", STATUS | {"TailscaleIPs": ["127.0.0.1"]})
    got = mesh_to_stub("wait", "--timeout=5s")
    assert (got.code, got.out, got.err) == (0, "", "")
    daemon.says("GET status", STATUS | {"TailscaleIPs": ["192.0.2.1"]})
    got = mesh_to_stub("wait", "--timeout=50ms")
    assert (got.code, got.err) == (1, "timeout after 50ms waiting for an interface with 192.0.2.1\n")
    daemon.says("GET status", STATUS | {"TailscaleIPs": ["192.0.2.1"], "TUN": False})
    assert mesh_to_stub("wait", "--timeout=5s").code == 0


def test_wait_without_daemon_times_out(tmp_path: Path, capsys) -> None:
    assert main([f"--socket={tmp_path}/none", "wait", "--timeout=30ms"]) == 1
    assert capsys.readouterr().err == "timeout after 30ms waiting for meshd to answer\n"


def test_wait_for_a_daemon_that_hangs_times_out(silent: str, capsys) -> None:
    assert main([f"--socket={silent}", "wait", "--timeout=30ms"]) == 1
    assert capsys.readouterr().err == "timeout after 30ms waiting for meshd to answer\n"


def test_wait_goes_on_when_a_daemon_ends_while_it_is_asked(mesh_to_stub, daemon) -> None:
    """One that is restarted: `tailscale wait` asks again, too."""
    daemon.says("GET status", b"not yet\n", 503)
    assert mesh_to_stub("wait", "--timeout=50ms").err == "timeout after 50ms waiting for meshd to answer\n"
    daemon.says("GET status", b"no\n", 403)
    assert mesh_to_stub("wait", "--timeout=5s").err.startswith("Access denied: no\n")


def test_metrics_print_and_write(mesh_to_stub, daemon, tmp_path: Path) -> None:
    daemon.says("GET usermetrics", b"a 1\n")
    assert mesh_to_stub("metrics").out == mesh_to_stub("metrics", "print").out == "a 1\n"
    assert mesh_to_stub("metrics", "write", str(tmp_path / "m.prom")).code == 0
    assert (tmp_path / "m.prom").read_text() == "a 1\n"
    got = mesh_to_stub("metrics", "write", str(tmp_path / "no" / "m.prom"))
    assert got.err == f"cannot write {tmp_path}/no/m.prom: No such file or directory\n"


def test_bugreport(mesh_to_stub, daemon) -> None:
    daemon.says("POST bugreport", b"BUG-1\n")
    assert mesh_to_stub("bugreport", "--diagnose", "it broke").out == "BUG-1\n"
    assert daemon.asked() == ["POST bugreport?note=it+broke&diagnose=true"]


def test_id_token(mesh_to_stub, daemon, monkeypatch) -> None:
    """LK-18."""
    monkeypatch.setenv("TAILSCALE_USE_WIP_CODE", "1")
    daemon.says("POST id-token?aud=x%2Fy", {"id_token": "abc"})
    assert mesh_to_stub("id-token", "x/y").out == "abc\n"


def test_appc_routes(mesh_to_stub, daemon) -> None:
    assert mesh_to_stub("appc-routes").out == "not a connector\n"
    daemon.says("GET prefs", {"AppConnector": {"Advertise": True}, "AdvertiseRoutes": ["10.0.0.0/8"]})
    daemon.says("GET appc-route-info", {"Domains": {"a.test": ["1.1.1.1"], "bb.test": ["1.1.1.1", "2.2.2.2"]}})
    assert mesh_to_stub("appc-routes").out == "bb.test 2\na.test  1\n"
    assert mesh_to_stub("appc-routes", "-n").out == "1\n"
    assert json.loads(mesh_to_stub("appc-routes", "--map").out)["a.test"] == ["1.1.1.1"]


def test_syspolicy(mesh_to_stub, daemon) -> None:
    daemon.says("GET policy/", {"Summary": {"Scope": "Device"}})
    assert mesh_to_stub("syspolicy", "list").out == "No policy settings\n"
    setting = {"Value": "always", "Origin": {"Name": "file", "Scope": "Device"}}
    daemon.says("POST policy/", {"Settings": {"UseTailscaleDNSSettings": setting}})
    assert "UseTailscaleDNSSettings  file    always" in mesh_to_stub("syspolicy", "reload").out


def test_licenses_come_from_the_packages(mesh_to_stub) -> None:
    got = mesh_to_stub("licenses").out
    assert "meshd" in got
    assert "BSD-3-Clause" in got
    assert "msgspec" in got


def test_ssh_runs_the_systems_ssh_with_known_hosts(mesh_to_stub, daemon, tmp_path: Path, monkeypatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("meshd.cli.commands.ssh_command._find_ssh", lambda: "/usr/bin/ssh")
    monkeypatch.setattr("os.execv", lambda program, arguments: ran.append(arguments))
    assert mesh_to_stub("ssh", "root@node-a", "uptime").code == 0
    assert ran[0][-2:] == ["root@node-a.mesh.test.", "uptime"]
    assert f'UserKnownHostsFile "{tmp_path}/meshd/ssh_known_hosts"' in ran[0]
    proxy = next(word for word in ran[0] if word.startswith("ProxyCommand"))
    assert proxy.endswith(f'"--socket={daemon.path}" nc %h %p')
    hosts = (tmp_path / "meshd" / "ssh_known_hosts").read_text()
    assert hosts == "".join(f"{n} ssh-ed25519 AAAA\n" for n in ("node-a.mesh.test.", "100.64.0.1", "fd7a:115c:a1e0::1"))


def test_nc_joins_the_connection_with_stdin_and_stdout(daemon) -> None:
    import subprocess
    import sys

    daemon.says("POST dial", b"early ", 101)
    words = [sys.executable, "-m", "meshd.cli.main", f"--socket={daemon.path}", "nc", "node-a", "22"]
    done = subprocess.run(words, input=b"hello\n", capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"early HELLO\n", b"")
    asked = daemon.requests[-1].headers
    assert (asked["dial-host"], asked["dial-port"], asked["upgrade"]) == ("node-a", "22", "ts-dial")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_nc_connects_by_itself_where_the_mesh_does_not_lead(tmp_path: Path, family: socket.AddressFamily) -> None:
    """api:dial: this host, the networks around it, what an exit node carries: never as the daemon's user."""
    import subprocess
    import sys
    from threading import Thread

    loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
    with LocalApiThread(str(tmp_path / "s")) as api, socket.create_server((loopback, 0), family=family) as server:

        def echo() -> None:
            with server.accept()[0] as far:
                while data := far.recv(100):
                    far.sendall(data.upper())

        Thread(target=echo, daemon=True).start()
        port = server.getsockname()[1]
        words = [sys.executable, "-m", "meshd.cli.main", f"--socket={api.path}", "nc", loopback, str(port)]
        done = subprocess.run(words, input=b"hello\n", capture_output=True, timeout=20)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO\n", b"")
        server.close()
        done = subprocess.run(words, input=b"", capture_output=True, timeout=20)
        assert (done.returncode, done.stderr.decode()) == (1, f'Dial("{loopback}", {port}): Connection refused\n')


def test_nc_takes_what_comes_while_nobody_reads_what_it_sends(tmp_path: Path, monkeypatch) -> None:
    """A server that answers with more than it is sent stops reading until its answer is taken."""
    from threading import Thread

    from meshd.cli.commands.nc_command import _join

    size = 4 << 20
    (tmp_path / "in").write_bytes(bytes(size))
    near, far = socket.socketpair()
    got = 0

    def serve() -> None:
        nonlocal got
        far.sendall(bytes(size))
        while data := far.recv(65536):
            got += len(data)
        far.close()

    with near, (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as output:
        monkeypatch.setattr("sys.stdin", source)
        monkeypatch.setattr("sys.stdout", output)
        server = Thread(target=serve, daemon=True)
        server.start()
        joined = Thread(target=_join, args=(near, b""), daemon=True)
        joined.start()
        joined.join(20)
        server.join(20)
    assert (got, (tmp_path / "out").stat().st_size) == (size, size)


def test_nc_refusals(mesh_to_stub, daemon) -> None:
    daemon.says("POST dial", b"dial failure: refused\n", 502)
    assert mesh_to_stub("nc", "node-a", "22").err == 'Dial("node-a", 22): 502 X: dial failure: refused\n'
    assert mesh_to_stub("nc", "node-a", "70000").err == 'invalid port number "70000"\n'
    assert mesh_to_stub("nc", "a\r\nX: y", "22").err.startswith("invalid host name")
    assert mesh_to_stub("nc", "node-a").err == "usage: mesh nc <hostname-or-IP> <port>\n"
