"""The control client against our own coordination server, as a process on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.base.addr import AddrPort
from meshd.core.controlstatus import ControlStatus, LoginFlags
from meshd.wire.control import ENDPOINT_LOCAL, NetInfo
from tests.interop.controlnode import ControlNode, run
from tests.interop.test_control_headscale import free_port

COORD = [sys.executable, "-c", "from meshd.coord.main import main; main()"]


class Coord:
    """A running mesh-coord with a state directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self.start()

    def start(self) -> None:
        command = [*COORD, "serve", "--state-dir", str(self._directory), "--listen", f"127.0.0.1:{self.port}"]
        command += ["--url", self.url, "--stun-port", str(free_port())]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        deadline = time.monotonic() + 15
        for line in self._process.stdout:
            if "mesh up" in line:
                return
            assert time.monotonic() < deadline
        raise RuntimeError("mesh-coord did not start")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, *args: str) -> str:
        command = [*COORD, *args[:2], "--state-dir", str(self._directory), *args[2:]]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coord]:
    coord = Coord(tmp_path_factory.mktemp("coord"))
    yield coord
    coord.stop()


def test_control_client_two_nodes_see_each_other(server: Coord) -> None:
    """LK-06, NM-03: join by key, endpoints and home region travel as patches, log out."""

    async def main() -> None:
        key = server.run("authkeys", "create", "--reusable").splitlines()[-1]
        one, two = ControlNode(server.url, "one", key), ControlNode(server.url, "two", key)
        one.open().login()
        await one.until(lambda s: s.netmap)
        two.open().login()
        await one.until(lambda s: s.netmap and s.netmap.node_by_name("two"))
        await two.until(lambda s: s.netmap and s.netmap.node_by_name("one"))
        endpoint = AddrPort.parse("192.0.2.7:41641")
        two.client.update_endpoints([(endpoint, ENDPOINT_LOCAL)])
        two.client.update_netinfo(NetInfo(preferred_derp=900))

        def told(status: ControlStatus) -> bool:
            node = status.netmap.node_by_name("two") if status.netmap else None
            return node is not None and node.endpoints == (endpoint,) and node.home_derp == 900

        await one.until(told)
        await two.client.logout()
        assert two.persist.node_private is None
        for node in (one, two):
            assert not [s.error for s in node.reports if s.error]
            await node.client.shutdown()

    run(main)


def test_control_client_restarts_on_both_sides(server: Coord) -> None:
    """SM-10: the same node after a restart of the client; a server restart leaves the netmap in use."""

    async def main() -> None:
        node = ControlNode(server.url, "again", server.run("authkeys", "create").splitlines()[-1])
        node.open().login()
        before = await node.until(lambda s: s.netmap)
        await node.client.shutdown()
        node.reports.clear()
        node.auth_key = ""
        node.open().login()
        after = await node.until(lambda s: s.netmap)
        assert before.netmap is not None
        assert after.netmap is not None
        assert after.netmap.self_node.id == before.netmap.self_node.id
        await asyncio.to_thread(server.stop)
        await node.until(lambda s: s.error)
        assert node.client.netmap is not None
        await asyncio.to_thread(server.start)
        node.reports.clear()
        await node.until(lambda s: s.in_map_poll, 30)
        await node.client.shutdown()

    run(main)


def test_control_client_wrong_key_is_told(server: Coord) -> None:
    """LK-20."""

    async def main() -> None:
        node = ControlNode(server.url, "wrong", "mesh-auth-000000000000-" + "0" * 64)
        node.open().login()
        status = await node.until(lambda s: s.error)
        assert status.error is not None
        assert status.error.code == "auth-refused"
        await node.client.shutdown()

    run(main)


def test_control_client_interactive_approval(server: Coord) -> None:
    """LK-02."""

    async def main() -> None:
        node = ControlNode(server.url, "person")
        node.open().login(LoginFlags.INTERACTIVE)
        status = await node.until(lambda s: s.auth_url)
        await asyncio.to_thread(server.run, "nodes", "approve", status.auth_url)
        await node.until(lambda s: s.login_finished)
        await node.until(lambda s: s.netmap)
        listed = json.loads(server.run("nodes", "list", "--json"))
        assert "person" in json.dumps(listed)
        await node.client.shutdown()

    run(main)
