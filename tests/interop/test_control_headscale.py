"""The control client against a genuine headscale on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.core.controlstatus import ControlStatus, LoginFlags
from meshd.wire.control import ENDPOINT_STUN, NetInfo
from tests.interop.controlnode import ControlNode, run

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("headscale") is None, reason="headscale is not on PATH"),
]

CONFIG = """
server_url: http://127.0.0.1:{port}
listen_addr: 127.0.0.1:{port}
metrics_listen_addr: 127.0.0.1:{metrics}
grpc_listen_addr: 127.0.0.1:{grpc}
noise: {{private_key_path: {dir}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: fd7a:115c:a1e0::/48, allocation: sequential}}
derp: {{server: {{enabled: false}}, urls: [], paths: [{dir}/derp.yaml], auto_update_enabled: false}}
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {dir}/db.sqlite, write_ahead_log: true}}}}
log: {{level: info, format: text}}
policy: {{mode: file, path: ""}}
dns: {{magic_dns: true, base_domain: mesh.test, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {dir}/hs.sock
unix_socket_permission: "0770"
"""
DERP = """
regions:
  900: {regionid: 900, regioncode: test, regionname: Test, nodes: [{name: 900a, regionid: 900, hostname: 127.0.0.1}]}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Headscale:
    """A running server in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = directory / "hs.yaml"
        text = CONFIG.format(port=self.port, metrics=free_port(), grpc=free_port(), dir=directory)
        self._config.write_text(text)
        (directory / "derp.yaml").write_text(DERP)
        self._log = (directory / "log").open("wb")
        self.start()
        self.user = self.run("users", "create", "u", "-o", "json")["id"]

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["headscale", "-c", str(self._config), "serve"], stdout=self._log, stderr=subprocess.STDOUT
        )
        for _ in range(200):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("headscale did not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def run(self, *args: str) -> dict:
        for _ in range(50):
            done = subprocess.run(["headscale", "-c", str(self._config), *args], capture_output=True, check=False)
            if done.returncode == 0:
                return json.loads(done.stdout or b"{}")
            time.sleep(0.1)
        raise RuntimeError(f"headscale {args}: {done.stdout!r} {done.stderr!r}")

    def auth_key(self, *flags: str) -> str:
        return str(self.run("preauthkeys", "create", "-u", str(self.user), "-o", "json", *flags)["key"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headscale]:
    headscale = Headscale(tmp_path_factory.mktemp("headscale"))
    yield headscale
    headscale.stop()


def test_control_client_auth_key_joins_and_sees_peers(server: Headscale) -> None:
    """LK-01, LK-06, NM-02: log in, get a map, tell endpoints and home region, see each other, log out."""

    async def main() -> None:
        key = server.auth_key("--reusable")
        first, second = ControlNode(server.url, "one", key), ControlNode(server.url, "two", key)
        first.open().login()
        await first.until(lambda s: s.netmap)
        assert first.client.netmap is not None
        assert first.client.netmap.self_node.name == "one.mesh.test."
        assert first.client.netmap.magic_dns_suffix == "mesh.test"
        assert first.client.netmap.filter_rules
        assert first.client.netmap.derp_map is not None
        second.open().login()
        await first.until(lambda s: s.netmap and s.netmap.node_by_name("two"))
        await second.until(lambda s: s.netmap and s.netmap.node_by_name("one"))
        second.client.update_netinfo(NetInfo(preferred_derp=900))
        second.client.update_endpoints([(AddrPort.parse("192.0.2.7:41641"), ENDPOINT_STUN)])

        def told(status: ControlStatus) -> bool:
            node = status.netmap.node_by_name("two") if status.netmap else None
            return node is not None and node.home_derp == 900

        await first.until(told)
        await second.client.logout()
        assert second.persist.node_private is None
        assert second.reports[-1].logged_out
        await first.until(lambda s: (s.change and s.change.removed) or (s.netmap and not _online(s, "two")), 30)
        await first.client.shutdown()
        await second.client.shutdown()

    run(main)


def _online(status: ControlStatus, name: str) -> bool:
    node = status.netmap.node_by_name(name) if status.netmap else None
    return node is not None and node.online is not False and not node.expired


def test_control_client_restart_keeps_its_node(server: Headscale) -> None:
    """SM-10: a new process with the stored keys is the same node, without any auth key."""

    async def main() -> None:
        node = ControlNode(server.url, "again", server.auth_key())
        node.open().login()
        before = await node.until(lambda s: s.netmap)
        await node.client.shutdown()
        node.reports.clear()
        node.auth_key = ""
        node.open().login()
        after = await node.until(lambda s: s.netmap)
        assert after.netmap.self_node.id == before.netmap.self_node.id
        await node.client.shutdown()

    run(main)


def test_control_client_wrong_auth_key_is_told_and_not_stored(server: Headscale) -> None:
    """LK-20: the server's words reach the user."""

    async def main() -> None:
        node = ControlNode(server.url, "wrong", "hskey-auth-000000000000-" + "0" * 64)
        node.open().login()
        status = await node.until(lambda s: s.error)
        assert isinstance(status.error, MeshdError)
        assert status.error.code == "auth-refused"
        assert node.persist.node_private is None
        await node.client.shutdown()

    run(main)


def test_control_client_interactive_login_waits_for_approval(server: Headscale) -> None:
    """LK-02: the URL is reported, the follow-up ends when the admin approves."""

    async def main() -> None:
        node = ControlNode(server.url, "person")
        node.open().login(LoginFlags.INTERACTIVE)
        status = await node.until(lambda s: s.auth_url)
        assert not status.can_continue
        auth_id = status.auth_url.rpartition("/")[2]
        await asyncio.to_thread(server.run, "auth", "register", "--auth-id", auth_id, "--user", "u", "-o", "json")
        await node.until(lambda s: s.login_finished)
        await node.until(lambda s: s.netmap)
        await node.client.shutdown()

    run(main)


def test_control_client_server_restart_keeps_the_netmap(server: Headscale) -> None:
    """NM-02: the old map stays while the server is away; the stream comes back by itself."""

    async def main() -> None:
        node = ControlNode(server.url, "stays", server.auth_key())
        node.open().login()
        await node.until(lambda s: s.netmap)
        await asyncio.to_thread(server.stop)
        await node.until(lambda s: s.error)
        assert node.client.netmap is not None
        assert not node.client.in_map_poll
        await asyncio.to_thread(server.start)
        node.reports.clear()
        await node.until(lambda s: s.in_map_poll, 40)
        await node.client.shutdown()

    run(main)
