"""How to bring up a pair of nodes of each program; all end with b reachable at an address from a."""

from __future__ import annotations

import argparse
import functools
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from perf.path.calibration import CIPHERS, build
from perf.path.hosts import ADDRESS, Hosts, Program, on, program, sh, wait_for
from perf.path.networks import NETWORKS

MTU = 1280
_INNER = {"a": "100.64.9.1", "b": "100.64.9.2"}
_OTHER = {"a": "b", "b": "a"}


@dataclass
class Pair:
    """Two running nodes; ``target`` is b's address in the tunnel."""

    name: str
    a: Program
    b: Program
    target: str
    relay: Program | None = None
    relay_name: str = ""


BringUp = Callable[[Hosts], Pair]


@dataclass(frozen=True)
class Daemon:
    """A node daemon with its command line; meshd and tailscaled take the same flags."""

    name: str
    daemon: str
    command: str


DAEMONS = (Daemon("meshd", "meshd", "mesh"), Daemon("tailscaled", "tailscaled", "tailscale"))
_QUIET = {"TS_NO_LOGS_NO_SUPPORT": "true", "TS_DEBUG_FIREWALL_MODE": "nftables"}


def mesh_nodes(hosts: Hosts, kind: Daemon, network: str, *, relayed: bool) -> Pair:
    """Two daemons in one network; the path is direct, or through the relay when ``relayed``."""
    joined = NETWORKS[network](hosts)
    nodes = {}
    for host in "ab":
        directory = hosts.directory / host
        directory.mkdir(exist_ok=True)
        command = [program(kind.daemon), f"--statedir={directory}", f"--socket={directory}/sock", "--tun=mesh0",
                   f"--state={directory}/state.json", "--port=41641"]  # fmt: skip
        nodes[host] = hosts.start(host, f"{kind.name}-{host}.log", command, _QUIET)
        wait_for((directory / "sock").exists, 20, f"the socket of {kind.name}")
        on(host, program(kind.command), f"--socket={directory}/sock", "up", f"--login-server={joined.url}",
           f"--auth-key={joined.key}", f"--hostname=perf-{host}", "--accept-dns=false", "--timeout=30s")  # fmt: skip
    sockets = {host: f"--socket={hosts.directory / host}/sock" for host in "ab"}
    target = on("b", program(kind.command), sockets["b"], "ip", "-4").strip()
    _expect_path(kind, sockets["a"], target, relayed=relayed)
    pair = Pair(kind.name, nodes["a"], nodes["b"], target)
    if relayed:
        pair.relay, pair.relay_name = joined.relay, joined.relay_name
    return pair


def _expect_path(kind: Daemon, socket: str, target: str, *, relayed: bool) -> None:
    def good() -> bool:
        direct = "false" if relayed else "true"
        words = on("a", program(kind.command), socket, "ping", f"--until-direct={direct}", "--c=5", "--timeout=3s",
                   target, check=False)  # fmt: skip
        last = (words.strip().splitlines() or [""])[-1]
        return "pong" in last and ("via DERP" in last) == relayed

    wait_for(good, 60, f"the {'relayed' if relayed else 'direct'} path of {kind.name}")


def userspace_wireguard(hosts: Hosts, name: str, command: tuple[str, ...]) -> Pair:
    """A program with the cross-platform control socket (wireguard-go, boringtun), set up with wg(8)."""
    keys = {}
    for host in "ab":
        private = sh("wg", "genkey").strip()
        path = hosts.directory / f"{name}-{host}.key"
        path.touch(0o600)
        path.write_text(private)
        keys[host] = (path, sh("wg", "pubkey", text=private).strip())
    nodes = {}
    for host, other in _OTHER.items():
        interface = f"pwg{host}"
        nodes[host] = hosts.start(
            host, f"{name}-{host}.log", [*command, interface],
            {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error", "WG_SUDO": "1"},
        )  # fmt: skip
        wait_for(Path(f"/var/run/wireguard/{interface}.sock").exists, 10, name)
        on(host, "wg", "set", interface, "listen-port", "51820", "private-key", str(keys[host][0]), "peer",
           keys[other][1], "allowed-ips", f"{_INNER[other]}/32", "endpoint", f"{ADDRESS[other]}:51820")  # fmt: skip
        _address(host, interface)
    on("a", "ping", "-c", "2", "-W", "3", _INNER["b"])
    return Pair(name, nodes["a"], nodes["b"], _INNER["b"])


def calibration(hosts: Hosts, cipher: str) -> Pair:
    """Our own tunnel without a protocol: what the kernel's interfaces allow with this AEAD."""
    binary = str(build(hosts.directory))
    nodes = {}
    for host, other in _OTHER.items():
        interface = f"pcal{host}"
        nodes[host] = hosts.start(
            host, f"calibration-{host}.log", [binary, interface, "5000", ADDRESS[other], "5000", cipher]
        )
        wait_for(functools.partial(_exists, host, interface), 5, "the calibration tunnel")
        _address(host, interface)
    on("a", "ping", "-c", "2", "-W", "3", _INNER["b"])
    return Pair(f"calibration-{cipher}", nodes["a"], nodes["b"], _INNER["b"])


def _exists(host: str, interface: str) -> bool:
    return bool(on(host, "ip", "link", "show", interface, check=False))


def _address(host: str, interface: str) -> None:
    on(host, "ip", "addr", "add", f"{_INNER[host]}/32", "dev", interface)
    on(host, "ip", "link", "set", interface, "mtu", str(MTU), "up")
    on(host, "ip", "route", "add", f"{_INNER[_OTHER[host]]}/32", "dev", interface)


_USERSPACE = {
    "wireguard-go": ("wireguard-go",),
    "boringtun": ("boringtun-cli", "-f", "--disable-drop-privileges"),
    "gotatun": ("gotatun", "-f", "--disable-drop-privileges"),
}


def daemons() -> list[Daemon]:
    """Those that this machine can run, meshd first."""
    return [kind for kind in DAEMONS if kind.name == "meshd" or _all_there(kind.daemon, kind.command)]


def chosen(parser: argparse.ArgumentParser, only: str, there: Collection[str]) -> list[str]:
    """The names that an option of names, separated by commas, leaves; all without it. The parser ends the run when one
    of them is not there."""
    names = [name for name in only.split(",") if name]
    unknown = [name for name in names if name not in there]
    if unknown:
        parser.error(f"not here: {', '.join(unknown)}; there are {', '.join(there)}")
    return names or list(there)


def _all_there(*programs: str) -> bool:
    return all(map(shutil.which, programs))


def available(network: str, *, relayed: bool) -> dict[str, BringUp]:
    """The pairs that this machine can run, meshd first. Only the mesh daemons know relays."""
    found: dict[str, BringUp] = {}
    for kind in daemons():
        found[kind.name] = functools.partial(mesh_nodes, kind=kind, network=network, relayed=relayed)
    if relayed:
        return found
    for cipher in CIPHERS if _all_there("cc") else ():
        found[f"calibration-{cipher}"] = functools.partial(calibration, cipher=cipher)
    for name, command in _USERSPACE.items():
        if _all_there(command[0], "wg"):
            found[name] = functools.partial(userspace_wireguard, name=name, command=command)
    return found
