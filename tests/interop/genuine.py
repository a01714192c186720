"""The genuine programs in the lab: headscale and derper on the host ``net``, tailscaled on ``a`` or ``b``."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.e2e.labhosts import Lab, Node, wait_until

# An address of the host ``net`` that is private: at a public one the Go client insists on TLS at port 443 for as long
# as its last dial was less than two minutes ago, whatever the URL says, so that it would not come back after a restart.
ADDRESS = "10.99.0.1"

_HEADSCALE = """
server_url: http://{address}:8080
listen_addr: {address}:8080
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
noise: {{private_key_path: {dir}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: fd7a:115c:a1e0::/48, allocation: sequential}}
derp: {{server: {{enabled: false}}, urls: [], paths: [{dir}/derp.yaml], auto_update_enabled: false}}
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {dir}/db.sqlite, write_ahead_log: true}}}}
log: {{level: info, format: text}}
policy: {{mode: file, path: ""}}
dns: {{magic_dns: true, base_domain: mesh.test, override_local_dns: false, {dns}}}
unix_socket: {dir}/hs.sock
unix_socket_permission: "0770"
"""
_REGION = """
regions:
  900:
    regionid: 900
    regioncode: test
    regionname: Test
    nodes:
      - {{name: 900a, regionid: 900, hostname: {address}, ipv4: {address}, ipv6: none, derpport: 8443, stunport: 3478,
         insecurefortests: true}}
"""


def needs(*programs: str) -> list[pytest.MarkDecorator]:
    """Marks that skip a test for every one of ``programs`` that is missing."""
    return [
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not on PATH") for program in programs
    ]


def private_address(lab: Lab) -> None:
    """Give ``net`` the address that the genuine clients accept without TLS."""
    lab.run("net", "ip", "address", "replace", f"{ADDRESS}/32", "dev", "br0")


class Headscale:
    """A headscale and its derper; ``url`` and ``auth_key`` are what a node needs to join."""

    def __init__(self, lab: Lab, *, dns: str = "nameservers: {global: []}") -> None:
        """``dns`` are further settings of its section of that name."""
        self.lab = lab
        self.directory = lab.directory / "headscale"
        self.directory.mkdir()
        private_address(lab)
        self._config = self.directory / "hs.yaml"
        self._config.write_text(_HEADSCALE.format(address=ADDRESS, dir=self.directory, dns=dns))
        (self.directory / "derp.yaml").write_text(_REGION.format(address=ADDRESS))
        self._make_certificate()
        self.url = f"http://{ADDRESS}:8080"
        self.derper = lab.start(
            "net", "derper.log", "derper", "-c", str(self.directory / "derper.json"), "-a", f"{ADDRESS}:8443",
            "-http-port", "-1", "-certmode", "manual", "-certdir", str(self.directory), "-hostname", ADDRESS,
        )  # fmt: skip
        self.start()
        user = self.command("users", "create", "u")["id"]
        self.auth_key = self.command("preauthkeys", "create", "--reusable", "--user", str(user))["key"]

    def _make_certificate(self) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={ADDRESS}", "-addext", f"subjectAltName=IP:{ADDRESS}",
             "-keyout", str(self.directory / f"{ADDRESS}.key"), "-out", str(self.directory / f"{ADDRESS}.crt")],
            check=True,
            capture_output=True,
        )  # fmt: skip

    def start(self) -> None:
        self.process = self.lab.start("net", "headscale.log", "headscale", "-c", str(self._config), "serve")
        wait_until(lambda: self._answers() or not self.process.running, 20, "headscale to answer")
        assert self.process.running, self.process.output

    def _answers(self) -> bool:
        done = self.lab.run("net", "curl", "-s", "-o", "/dev/null", f"{self.url}/health", check=False)
        return done.returncode == 0

    def restart(self) -> None:
        self.process.stop()
        self.start()

    def command(self, *arguments: str) -> Any:
        """The administrator's command; its JSON."""
        done = self.lab.run("net", "headscale", "-c", str(self._config), *arguments, "-o", "json")
        return json.loads(done.stdout)

    def node(self, name: str) -> dict[str, Any]:
        """The node with this name as the server knows it, empty when it does not."""
        nodes = self.command("nodes", "list") or []
        return next((n for n in nodes if n["name"] == name), {})


# tailscaled keeps a copy of resolv.conf beside it, and any tailscaled that starts later puts that copy back. Each one
# gets an /etc of its own, so that this is never the machine's.
PRIVATE_ETC = (
    "unshare", "--mount", "--propagation=private", "sh", "-c",
    'cp -a /etc/. "$0" && mount --bind "$0" /etc && exec "$@"',
)  # fmt: skip


class GenuineNode(Node):
    """A tailscaled with the official command line, in the place of our own."""

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)  # of one that was killed
        etc = self.directory / "etc"
        shutil.rmtree(etc, ignore_errors=True)
        etc.mkdir()
        self.process = self.lab.start(
            self.host, f"{self.name}.log", *PRIVATE_ETC, str(etc), "tailscaled", f"--state={self.directory}/state.json",
            f"--statedir={self.directory}", f"--socket={self.socket}", "--port=41641", *self.flags,
            environment={"TS_NO_LOGS_NO_SUPPORT": "true", "TS_DEBUG_FIREWALL_MODE": "nftables"},
        )  # fmt: skip
        wait_until(lambda: self.socket.exists() or not self._process.running, 10, "tailscaled's socket")
        assert self._process.running, self._process.output

    def mesh(self, *arguments: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        return official(self, *arguments, check=check, seconds=seconds)


def official(node: Node, *arguments: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """The official command line against any node's socket."""
    return node.lab.run(node.host, "tailscale", f"--socket={node.socket}", *arguments, check=check, seconds=seconds)
