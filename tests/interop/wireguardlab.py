"""A host with wireguard-go and a host with our engine and data plane, joined by one cable."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshd.base.keys import NodePrivate

NEEDED = [
    pytest.mark.netns,
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not on PATH"),
    pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not on PATH"),
]
ROOT = Path(__file__).parents[2]


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=30).stdout


def wait_for(condition, what, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class WireGuardLab:
    """Two namespaces joined by a veth pair: wireguard-go in ``go``, our node in ``us``."""

    def __init__(self, directory):
        self.us, self.go = f"wgt{os.getpid()}u", f"wgt{os.getpid()}g"
        self.interface = f"wgt{os.getpid()}"[:15]
        self.ours, self.theirs = NodePrivate.generate(), NodePrivate.generate()
        self.key_file = directory / "key"
        self.key_file.write_text(base64.b64encode(self.theirs.raw).decode())
        self.log = (directory / "wireguard-go.log").open("w")
        self.node = None
        self.wireguard = None
        for name in (self.us, self.go):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", self.us, "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", self.go)
        for name, address in ((self.us, "192.0.2.1/24"), (self.go, "192.0.2.2/24")):
            run("ip", "-n", name, "addr", "add", address, "dev", "up0")
            run("ip", "-n", name, "link", "set", "up0", "up")

    def start_wireguard(self):
        environment = {**os.environ, "LOG_LEVEL": "verbose"}
        self.wireguard = subprocess.Popen(
            ["ip", "netns", "exec", self.go, "wireguard-go", "-f", self.interface],
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        path = Path("/var/run/wireguard") / f"{self.interface}.sock"
        wait_for(path.exists, "wireguard-go does not start")
        self.wg("set", self.interface, "private-key", str(self.key_file), "listen-port", "51820")
        peer = base64.b64encode(self.ours.public().raw).decode()
        self.wg(
            *("set", self.interface, "peer", peer, "allowed-ips", "100.64.0.1/32"), *("endpoint", "192.0.2.1:41641")
        )
        run("ip", "-n", self.go, "addr", "add", "100.64.0.2/24", "dev", self.interface)
        run("ip", "-n", self.go, "link", "set", self.interface, "mtu", "1280", "up")

    def stop_wireguard(self):
        if self.wireguard is not None:
            self.wireguard.terminate()
            self.wireguard.wait(10)
            self.wireguard = None

    def start_node(self):
        config = {
            "interface": "mesh0",
            "port": "41641",
            "private": self.ours.raw.hex(),
            "peer": self.theirs.public().raw.hex(),
            "endpoint": "192.0.2.2:51820",
            "address": "100.64.0.1",
            "allowed": "100.64.0.2/32",
            "target": "100.64.0.2",
        }
        self.node = subprocess.Popen(
            ["ip", "netns", "exec", self.us, sys.executable, "-m", "tests.interop.wireguard_node", json.dumps(config)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert json.loads(self.node.stdout.readline()) == "ready"
        run("ip", "-n", self.us, "addr", "add", "100.64.0.1/24", "dev", "mesh0")
        run("ip", "-n", self.us, "link", "set", "mesh0", "mtu", "1280", "up")

    def ask(self, command):
        self.node.stdin.write(command + "\n")
        self.node.stdin.flush()
        return json.loads(self.node.stdout.readline())

    def ping(self, side, target, *options):
        """Lost pings in percent."""
        output = run("ip", "netns", "exec", side, "ping", "-n", "-W", "2", *options, target, check=False)
        return float(re.search(r"([\d.]+)% packet loss", output).group(1))

    def wg(self, *arguments):
        return run("ip", "netns", "exec", self.go, "wg", *arguments)

    def transfer(self):
        """What wireguard-go counts: received, sent."""
        return tuple(map(int, self.wg("show", self.interface, "transfer").split()[1:]))

    def close(self):
        if self.node is not None:
            self.node.stdin.close()
            self.node.wait(10)
            self.node.stdout.close()
        self.stop_wireguard()
        self.log.close()
        for name in (self.us, self.go):
            run("ip", "netns", "del", name, check=False)


def assert_counters_agree(lab):
    wait_for(
        lambda: (lab.ask("status")["tx"], lab.ask("status")["rx"]) == lab.transfer(),
        f"{lab.ask('status')} and {lab.transfer()} differ: {lab.ask('counters')}",
        timeout=3,
    )
