"""`mesh configure kubeconfig` and `mesh service list`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.testing.fakebackend import peer_status

KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
exit {code}
"""


def kubectl(folder: Path, code: int = 0) -> Path:
    folder.mkdir()
    program, log = folder / "kubectl", folder / "log"
    program.write_text(KUBECTL.format(log=log, code=code))
    program.chmod(0o755)
    return log


def test_kubeconfig_is_made_by_kubectl(mesh, tmp_path: Path, monkeypatch) -> None:
    """cli:configure kubeconfig: cluster, user and context, by the program that owns the file."""
    log = kubectl(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    got = mesh("configure", "kubeconfig", "node-a")
    assert (got.code, got.out) == (
        0,
        'kubeconfig configured for "node-a.mesh.test" at URL "https://node-a.mesh.test"\n',
    )
    assert log.read_text().splitlines() == [
        "config set-cluster node-a.mesh.test --server=https://node-a.mesh.test",
        "config set-credentials tailscale-auth --token=unused",
        "config set-context node-a.mesh.test --cluster=node-a.mesh.test --user=tailscale-auth",
        "config use-context node-a.mesh.test",
    ]


@pytest.mark.parametrize(
    ("words", "url"),
    [
        (["--http", "100.64.0.1"], "http://node-a.mesh.test"),
        (["http://NODE-A.mesh.test."], "http://node-a.mesh.test"),
        (["--http", "https://node-a/"], "https://node-a.mesh.test"),
    ],
)
def test_kubeconfig_scheme_and_names(mesh, tmp_path: Path, monkeypatch, words: list[str], url: str) -> None:
    """cli:configure kubeconfig --http."""
    log = kubectl(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert mesh("configure", "kubeconfig", *words).code == 0
    assert f"--server={url}" in log.read_text()


def test_kubeconfig_without_kubectl(mesh, tmp_path: Path, monkeypatch) -> None:
    """cli:configure kubeconfig: a new file, and again the same file; one in YAML is left alone."""
    monkeypatch.setenv("PATH", "/nonexistent")
    file = tmp_path / "kube" / "config"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{file}")
    assert mesh("configure", "kubeconfig", "node-a").code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    first = json.loads(file.read_text())
    assert first["clusters"] == [{"name": "node-a.mesh.test", "cluster": {"server": "https://node-a.mesh.test"}}]
    assert first["current-context"] == "node-a.mesh.test"
    first["clusters"].append({"name": "other", "cluster": {"server": "https://other"}})
    file.write_text(json.dumps(first))
    assert mesh("configure", "kubeconfig", "--http", "node-a").code == 0
    again = json.loads(file.read_text())
    assert {c["name"]: c["cluster"]["server"] for c in again["clusters"]} == {
        "other": "https://other",
        "node-a.mesh.test": "http://node-a.mesh.test",
    }
    for text in ("apiVersion: v1\nkind: Config\n", "[]", '{"apiVersion":"v1","kind":"Config","clusters":7}', "\xff"):
        file.write_bytes(text.encode("latin-1"))
        got = mesh("configure", "kubeconfig", "node-a")
        assert (got.code, str(file) in got.err) == (1, True)
        assert file.read_bytes() == text.encode("latin-1")


def test_kubeconfig_refusals(mesh, localapi, tmp_path: Path, monkeypatch) -> None:
    kubectl(tmp_path / "bin", code=3)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "kubectl config set-cluster failed" in mesh("configure", "kubeconfig", "node-a").err
    assert mesh("configure", "kubeconfig", "nosuch").err == 'no peer found for "nosuch"\n'
    assert "neither http nor https" in mesh("configure", "kubeconfig", "ftp://node-a").err
    localapi.backend.state = "Stopped"
    assert "not running" in mesh("configure", "kubeconfig", "node-a").err


def test_kubeconfig_of_a_service(mesh, localapi, tmp_path: Path, monkeypatch) -> None:
    """cli:configure kubeconfig: a service is one that a peer serves now."""
    log = kubectl(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    record = {"Name": "k8s.mesh.test.", "Value": "100.100.0.1"}
    monkeypatch.setattr(type(localapi.backend), "dns_config", lambda self: {"ExtraRecords": [record]})
    assert "not currently reachable" in mesh("configure", "kubeconfig", "k8s").err
    peer = peer_status(AllowedIPs=["100.64.0.1/32", "100.100.0.1/32"])
    localapi.backend.peers = {peer["PublicKey"]: peer}
    assert mesh("configure", "kubeconfig", "k8s").code == 0
    assert "--server=https://k8s.mesh.test" in log.read_text()


SERVICES = {
    "svc:web": {"Name": "svc:web", "DisplayName": "Web \x1b[1m", "Addrs": ["100.100.0.1"],
                "Ports": ["tcp:443", "tcp:80"]},
    "svc:db": {"Name": "svc:db", "Addrs": ["100.100.0.2"], "Ports": ["tcp:5432", "22", "udp:53", "tcp:6443"]},
    "svc:odd": {"Name": "svc:odd", "Actions": [{"Type": "ssh"}, {"Type": "ssh"}]},
}  # fmt: skip


def test_service_list(mesh_to_stub, stub) -> None:
    """cli:service list: sorted by name, with what can be done with each; nothing drives the terminal."""
    stub.says("GET services", SERVICES)
    stub.says("GET status", {"CurrentTailnet": {"MagicDNSSuffix": "mesh.test"}})
    got = mesh_to_stub("service", "list")
    assert got.code == 0
    rows = [line.split("     ") for line in got.out.splitlines() if line.strip()]
    assert [cell.strip() for cell in rows[0] if cell.strip()] == ["IP", "HOSTNAME", "DISPLAY NAME", "ENDPOINTS", "TYPE"]
    lines = [" ".join(line.split()) for line in got.out.splitlines()]
    assert lines[2] == "100.100.0.2 db.mesh.test - tcp:5432, 22, udp:53, tcp:6443 postgresql, ssh, 1 other"
    assert lines[3] == "- odd.mesh.test - - ssh"
    assert lines[4].startswith("100.100.0.1 web.mesh.test Web")
    assert lines[4].endswith("tcp:443, tcp:80 http")
    assert "\x1b" not in got.out
    entries = json.loads(mesh_to_stub("service", "list", "--json").out)
    assert [entry["Hostname"] for entry in entries] == ["db.mesh.test", "odd.mesh.test", "web.mesh.test"]
    assert entries[2]["Ports"] == ["tcp:443", "tcp:80"]


def test_service_list_of_none(mesh_to_stub, stub) -> None:
    stub.says("GET services", {})
    stub.says("GET status", {"CurrentTailnet": None})
    assert mesh_to_stub("service", "list").out == "No services are available to this node.\n"
    assert mesh_to_stub("service", "list", "--json").out == "[]\n"
    assert mesh_to_stub("service", "list", "x").err == "usage: mesh service list\n"
