"""Hosts on networks of their own behind other hosts of the lab; all those networks have the same addresses."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.labhosts import Lab

LAN_V4, LAN_V6 = "10.20.30.0/24", "2001:db8:30::/64"
HOST_V4, HOST_V6 = "10.20.30.40", "2001:db8:30::40"


@contextmanager
def extra_host(lab: Lab, behind: str, name: str = "c") -> Iterator[None]:
    """The host for as long as the block runs; ``behind`` forwards for it."""
    namespace = f"{lab.name}-{name}"
    own = Path("/etc/netns", namespace)
    own.mkdir(parents=True, exist_ok=True)
    (own / "resolv.conf").write_text("# no name server in the lab\n")
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        lab.run(behind, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        lab.run(behind, "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        for host, interface, v4, v6 in (
            (behind, "lan0", "10.20.30.1", "2001:db8:30::1"),
            (name, "eth0", HOST_V4, HOST_V6),
        ):
            lab.run(host, "ip", "address", "add", f"{v4}/24", "dev", interface)
            lab.run(host, "ip", "address", "add", f"{v6}/64", "dev", interface, "nodad")
            lab.run(host, "ip", "link", "set", interface, "up")
        lab.run(name, "ip", "link", "set", "lo", "up")
        lab.run(name, "ip", "route", "add", "default", "via", "10.20.30.1")
        lab.run(name, "ip", "-6", "route", "add", "default", "via", "2001:db8:30::1")
        yield
    finally:
        lab.stop_all()
        subprocess.run(["ip", "netns", "del", namespace], check=True)
        shutil.rmtree(own)
