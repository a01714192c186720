"""4via6: IPv4 networks with the same addresses at two sites, reached by the IPv6 addresses that stand for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.e2e.extrahost import HOST_V4, LAN_V4, extra_host
from tests.e2e.labhosts import Coordinator, Lab, Node, Process, running_lab, wait_until
from tests.e2e.traffic import FileServer, bracketed, caller, fetched_digest, lost_percent, start_mirror, wait_reachable

pytestmark = pytest.mark.netns

SITES = {7: ("b", "c"), 8: ("ra", "d")}  # which node routes for which host
UDP_PORT = 5555

# Answers each datagram with as many bytes as it asks for, and says who asked.
_ECHO = f"""
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", {UDP_PORT}))
print("Serving", flush=True)
while True:
    data, sender = server.recvfrom(65535)
    server.sendto((b"%d %s " % (len(data), sender[0].encode())).ljust(int(data[:8]), b"."), sender)
"""

# Sends once or, lost packets and lessons about path MTUs apart, a few times.
_ASK = """
import socket, sys
host, port, size, wanted = sys.argv[1], *map(int, sys.argv[2:])
asker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asker.settimeout(1)
asker.connect((host, port))
for _ in range(5):
    try:
        asker.send((b"%08d" % wanted).ljust(size, b"x"))
        answer = asker.recv(65535)
    except ConnectionRefusedError:
        print("refused")
        break
    except (TimeoutError, OSError):
        continue
    print(len(answer), answer[:40].decode().rstrip("."))
    break
"""


def via(site: int) -> str:
    return str(ip_address("fd7a:115c:a1e0:b1a::") + (site << 32 | int(ip_address(HOST_V4))))  # type: ignore[operator]


def asked(lab: Lab, target: str, size: int, wanted: int, port: int = UDP_PORT) -> str:
    """The answer to a datagram of ``size`` bytes that asks for ``wanted``."""
    command = [sys.executable, "-c", _ASK, target, str(port), str(size), str(wanted)]
    return lab.run("a", *command, check=False).stdout.strip()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        running_lab(tmp_path_factory.mktemp("via"), "mt-via") as made,
        extra_host(made, behind="b"),
        extra_host(made, behind="ra", name="d"),
    ):
        for router, host in SITES.values():
            made.run(router, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.lan0.rp_filter=0")
            made.run(host, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> dict[str, Node]:
    """The client a, and a router at each site whose route is offered, approved and accepted."""
    made = {host: Node(lab, host) for host in ("a", "b", "ra")}
    for node in made.values():
        node.up(coordinator)
    made["a"].mesh("set", "--accept-routes")
    for site, (router, _) in SITES.items():
        route = made[router].mesh("debug", "via", str(site), LAN_V4).stdout.strip()
        made[router].mesh("set", f"--advertise-routes={route}")
        wait_until(
            lambda wanted=route: wanted in coordinator.command("nodes", "list", "--json"), 10, "the offer to be known"
        )
        coordinator.command("nodes", "approve-routes", f"node-{router}", route)
    return made


@pytest.fixture(scope="module")
def answering(lab: Lab) -> dict[str, Process]:
    made = {host: lab.start(host, f"echo-{host}.log", sys.executable, "-c", _ECHO) for _, host in SITES.values()}
    for process in made.values():
        wait_until(lambda p=process: "Serving" in p.output, 10, "the server of datagrams")
    return made


@pytest.fixture(scope="module")
def servers(lab: Lab) -> dict[str, FileServer]:
    return {host: FileServer(lab, host, 3_000_000 + len(host), "0.0.0.0") for _, host in SITES.values()}


@pytest.mark.parametrize("site", SITES)
def test_via_address_answers_pings(nodes: dict[str, Node], lab: Lab, site: int) -> None:
    """RT-08."""
    wait_reachable(lab, "a", via(site), 20)
    assert lost_percent(lab, "a", via(site), 5, "-s", "1200") == 0


@pytest.mark.parametrize("site", SITES)
def test_via_address_carries_files_from_the_host_of_its_site(
    nodes: dict[str, Node], lab: Lab, servers: dict[str, FileServer], site: int
) -> None:
    """RT-08: super packets both ways, and the two hosts have the same IPv4 address."""
    wait_reachable(lab, "a", via(site), 20)
    assert fetched_digest(lab, "a", via(site)) == servers[SITES[site][1]].digest


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("size", "wanted"), [(100, 200), (1200, 1200), (100, 1230), (100, 1250), (3000, 4000)])
def test_via_address_carries_datagrams_of_every_size(
    nodes: dict[str, Node], lab: Lab, answering: dict[str, Process], site: int, size: int, wanted: int
) -> None:
    """RT-08: also such as grow beyond the tunnel's MTU on the way back, and fragments both ways."""
    wait_reachable(lab, "a", via(site), 20)
    assert asked(lab, via(site), size, wanted) == f"{wanted} {size} 10.20.30.1"


def test_via_address_tells_of_closed_ports(nodes: dict[str, Node], lab: Lab) -> None:
    """RT-08: what the IPv4 host says of a port comes back as what IPv6 says."""
    wait_reachable(lab, "a", via(7), 20)
    assert asked(lab, via(7), 100, 100, port=9) == "refused"
    done = lab.run("a", "curl", "-sS", "-m", "10", f"http://{bracketed(via(7))}:9/", check=False)
    assert "refused" in done.stderr.lower() or done.returncode == 7


def test_via_address_beside_the_plain_route_to_the_same_host(
    nodes: dict[str, Node], lab: Lab, coordinator: Coordinator, servers: dict[str, FileServer]
) -> None:
    """RT-08: answers go back the way that the flow came."""
    route = nodes["b"].mesh("debug", "via", "7", LAN_V4).stdout.strip()
    nodes["b"].mesh("set", f"--advertise-routes={route},{LAN_V4}")
    wait_until(
        lambda: any(LAN_V4 in str(n) for n in json.loads(coordinator.command("nodes", "list", "--json"))),
        10,
        "the plain route to be known",
    )
    coordinator.command("nodes", "approve-routes", "node-b", "--all")
    wait_reachable(lab, "a", HOST_V4, 20)
    for target in (HOST_V4, via(7), via(8)):
        assert fetched_digest(lab, "a", target) == servers["d" if target == via(8) else "c"].digest
    assert lost_percent(lab, "a", HOST_V4) == lost_percent(lab, "a", via(7)) == 0


def test_via_source_is_the_peer_without_address_translation(nodes: dict[str, Node], lab: Lab) -> None:
    """RT-08: with snat-subnet-routes the host sees the router, else the peer's IPv4 address."""
    start_mirror(lab, "d")
    wait_until(lambda: caller(lab, "a", via(8)) == "10.20.30.1", 20, "the router's address")
    nodes["ra"].mesh("set", "--snat-subnet-routes=false")
    wait_until(lambda: caller(lab, "a", via(8)) == nodes["a"].ip, 20, "the peer's own address")
    nodes["ra"].mesh("set", "--snat-subnet-routes=true")


def test_via_name_leads_to_the_address(nodes: dict[str, Node], lab: Lab) -> None:
    """DN-12: a name made of the IPv4 address and the site."""
    found = nodes["a"].mesh("dns", "query", HOST_V4.replace(".", "-") + "-via-7", "AAAA", check=False)
    assert via(7) in found.stdout


def test_via_route_withdrawn_carries_nothing(nodes: dict[str, Node], lab: Lab) -> None:
    nodes["ra"].mesh("set", "--advertise-routes=")
    wait_until(lambda: lost_percent(lab, "a", via(8), 1, "-W", "1") == 100, 15, "site 8 to be gone")
    assert lost_percent(lab, "a", via(7)) == 0
