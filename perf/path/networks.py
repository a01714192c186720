"""Coordination servers with their relay: our own, or headscale with derper where they are on PATH."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass

from perf.path.hosts import ADDRESS, Hosts, Program, on, program, wait_for

HOST = ADDRESS["c"]

_HEADSCALE = """
server_url: http://{host}:8080
listen_addr: {host}:8080
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
noise: {{private_key_path: {dir}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: fd7a:115c:a1e0::/48, allocation: sequential}}
derp: {{server: {{enabled: false}}, urls: [], paths: [{dir}/derp.yaml], auto_update_enabled: false}}
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {dir}/db.sqlite, write_ahead_log: true}}}}
log: {{level: warn, format: text}}
policy: {{mode: file, path: ""}}
dns: {{magic_dns: false, base_domain: mesh.test, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {dir}/headscale.sock
unix_socket_permission: "0770"
"""
_RELAY = """
regions:
  900:
    regionid: 900
    regioncode: perf
    regionname: Perf
    nodes:
      - {{name: 900a, regionid: 900, hostname: {host}, ipv4: {host}, ipv6: none, derpport: 8443, stunport: 3478,
         insecurefortests: true}}
"""


@dataclass
class Network:
    """Where nodes log in; ``relay`` is the program that carries relayed packets."""

    url: str
    key: str
    relay: Program
    relay_name: str


def mesh_coord(hosts: Hosts) -> Network:
    """Our coordination server and the relay that is part of it."""
    url = f"http://{HOST}:8080"
    command = [program("mesh-coord"), "serve", "--state-dir", str(hosts.directory / "coord"), "--listen",
               f"{HOST}:8080", "--url", url]  # fmt: skip
    coord = hosts.start("c", "coord.log", command)
    found = wait_for(lambda: re.search(r"--auth-?key=(\S+)", coord.log.read_text()), 20, "mesh-coord")
    return Network(url, found[1], coord, "mesh-coord")


def headscale(hosts: Hosts) -> Network:
    """headscale, and derper with a certificate of its own making."""
    directory = hosts.directory
    (directory / "headscale.yaml").write_text(_HEADSCALE.format(host=HOST, dir=directory))
    (directory / "derp.yaml").write_text(_RELAY.format(host=HOST))
    relay = hosts.start(
        "c",
        "derper.log",
        ["derper", "-c", str(directory / "derper.json"), "-a", f"{HOST}:8443", "-certmode", "manual", "-certdir",
         str(directory), "-hostname", HOST, "-http-port", "-1", "-stun-port", "3478"],
    )  # fmt: skip
    config = f"--config={directory}/headscale.yaml"
    server = hosts.start("c", "headscale.log", ["headscale", config, "serve"])
    wait_for((directory / "headscale.sock").exists, 20, f"headscale ({server.log})")

    def ask(*command: str) -> dict[str, str]:
        found = json.loads(on("c", "headscale", config, *command, "--output", "json"))
        return found[0] if isinstance(found, list) else found

    ask("users", "create", "perf")
    user = str(ask("users", "list")["id"])
    key = ask("preauthkeys", "create", "--reusable", "--user", user)["key"]
    return Network(f"http://{HOST}:8080", key, relay, "derper")


def choose(name: str) -> str:
    """``auto`` is headscale with derper when both are there."""
    if name == "auto":
        return "headscale" if shutil.which("headscale") and shutil.which("derper") else "mesh-coord"
    return name


NETWORKS = {"mesh-coord": mesh_coord, "headscale": headscale}
