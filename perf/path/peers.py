"""How to bring up a pair of nodes of each program; all end with b reachable at an address from a."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perf.path.hosts import ADDRESS, Hosts, Program, on, program, sh, wait_for

MTU = 1280


@dataclass
class Pair:
    """Two running nodes; ``target`` is b's address in the tunnel."""

    name: str
    a: Program
    b: Program
    target: str
    relay: Program | None = None


def meshd(hosts: Hosts, *, relayed: bool) -> Pair:
    """Two meshd joined to a mesh-coord; through its relay when ``relayed``."""
    url = f"http://{ADDRESS['c']}:8080"
    coord = hosts.start(
        "c",
        "coord.log",
        [program("mesh-coord"), "serve", "--state-dir", str(hosts.directory / "coord"), "--listen",
         f"{ADDRESS['c']}:8080", "--url", url],
    )  # fmt: skip
    found = wait_for(lambda: re.search(r"--auth-?key=(\S+)", coord.log.read_text()), 15, "mesh-coord")
    key = found[1]  # type: ignore[index]
    nodes = {}
    for host in "ab":
        directory = hosts.directory / host
        directory.mkdir(exist_ok=True)
        nodes[host] = hosts.start(
            host,
            f"meshd-{host}.log",
            [program("meshd"), f"--statedir={directory}", f"--socket={directory}/sock", "--tun=mesh0", "--port=41641"],
        )
        wait_for(lambda: Path(f"{directory}/sock").exists(), 10, "meshd's socket")  # noqa: B023 (called at once)
        on(host, program("mesh"), f"--socket={directory}/sock", "up", f"--login-server={url}", f"--auth-key={key}",
           f"--hostname=perf-{host}", "--timeout=30s")  # fmt: skip
    sockets = {host: f"--socket={hosts.directory / host}/sock" for host in "ab"}
    target = on("b", program("mesh"), sockets["b"], "ip", "-4").strip()
    kind = "false" if relayed else "true"
    on("a", program("mesh"), sockets["a"], "ping", f"--until-direct={kind}", "--c=10", "--timeout=5s", target)
    return Pair("meshd", nodes["a"], nodes["b"], target, coord)


def userspace_wireguard(hosts: Hosts, name: str, command: list[str]) -> Pair:
    """A program with the cross-platform control socket (wireguard-go, boringtun), set up with wg(8)."""
    keys = {}
    for host in "ab":
        private = sh("wg", "genkey").strip()
        path = hosts.directory / f"{name}-{host}.key"
        path.write_text(private)
        path.chmod(0o600)
        keys[host] = (path, sh("wg", "pubkey", text=private).strip())
    nodes = {}
    inner = {"a": "100.64.9.1", "b": "100.64.9.2"}
    for host, other in (("a", "b"), ("b", "a")):
        interface = f"pwg{host}"
        nodes[host] = hosts.start(
            host, f"{name}-{host}.log", [*command, interface],
            {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error", "WG_SUDO": "1"},
        )  # fmt: skip
        wait_for(lambda: Path(f"/var/run/wireguard/{interface}.sock").exists(), 10, name)  # noqa: B023
        on(host, "wg", "set", interface, "listen-port", "51820", "private-key", str(keys[host][0]), "peer",
           keys[other][1], "allowed-ips", f"{inner[other]}/32", "endpoint", f"{ADDRESS[other]}:51820")  # fmt: skip
        on(host, "ip", "addr", "add", f"{inner[host]}/32", "dev", interface)
        on(host, "ip", "link", "set", interface, "mtu", str(MTU), "up")
        on(host, "ip", "route", "add", f"{inner[other]}/32", "dev", interface)
    on("a", "ping", "-c", "2", "-W", "3", inner["b"])
    return Pair(name, nodes["a"], nodes["b"], inner["b"])


def available() -> dict[str, Callable[[Hosts], Pair]]:
    """The pairs that this machine can run directly, meshd first."""
    found: dict[str, Callable[[Hosts], Pair]] = {"meshd": lambda hosts: meshd(hosts, relayed=False)}
    commands = {
        "wireguard-go": ["wireguard-go"],
        "boringtun": ["boringtun-cli", "-f", "--disable-drop-privileges"],
        "gotatun": ["gotatun", "-f"],
    }
    for name, command in commands.items():
        if shutil.which(command[0]):
            found[name] = lambda hosts, n=name, c=command: userspace_wireguard(hosts, n, c)  # type: ignore[misc]
    return found


def as_json(values: object) -> str:
    return json.dumps(values, indent=1)
