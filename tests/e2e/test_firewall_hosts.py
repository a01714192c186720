"""Hosts that have a life of their own: firewalls that drop, addresses of a provider's range, and the state that such a
host is in before and after."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.extrahost import HOST_V4, LAN_V4, extra_host
from tests.e2e.labhosts import Coordinator, Lab, Node, program, running_lab, wait_until
from tests.e2e.traffic import caller, lost_percent, start_mirror

pytestmark = pytest.mark.netns

# What programs in the wild set up on hosts.
HOST_FIREWALLS = {
    "none": [],
    "docker with iptables": [
        "iptables -N DOCKER",
        "iptables -A FORWARD -o lan9 -j DOCKER",
        "iptables -P FORWARD DROP",
        "ip6tables -P FORWARD DROP",
    ],
    "docker with the older iptables": [
        "iptables-legacy -N DOCKER",
        "iptables-legacy -A FORWARD -o lan9 -j DOCKER",
        "iptables-legacy -P FORWARD DROP",
    ],
    "ufw": [
        "iptables -P INPUT DROP",
        "iptables -A INPUT -i lo -j ACCEPT",
        "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "iptables -P FORWARD DROP",
    ],
    "iptables-services, whose policy is to accept": [
        "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "iptables -A INPUT -i lo -j ACCEPT",
        "iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited",
        "iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
    ],
    "nftables that lets the mesh pass": [
        "nft add table inet fw",
        "nft add chain inet fw forward { type filter hook forward priority 0; policy drop; }",
        "nft add rule inet fw forward iifname mesh0 accept",
        "nft add rule inet fw forward oifname mesh0 accept",
    ],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("hosts"), "mt-fwh") as made, extra_host(made, behind="b"):
        start_mirror(made, "c")
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> tuple[Node, Node]:
    a, b = Node(lab, "a"), Node(lab, "b")
    a.up(coordinator, "--accept-routes")
    b.up(coordinator, f"--advertise-routes={LAN_V4}")
    wait_until(lambda: "10.20.30.0" in coordinator.command("nodes", "list", "--json"), 10, "the routes")
    coordinator.command("nodes", "approve-routes", "node-b", "--all")
    wait_until(lambda: caller(lab, "a", HOST_V4) == "10.20.30.1", 15, "the route to work")
    b.stop()
    # The kernel puts link-local addresses and their routes into force a second or two after an interface came up.
    wait_until(lambda: "tentative" not in lab.run("b", "ip", "-6", "addr").stdout, 10, "addresses to be in force")
    return a, b


def state(lab: Lab) -> str:
    """All that meshd could have changed on b; without counters, handles, and iptables' own empty tables."""
    commands = [
        "nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save", "ip rule", "ip -6 rule",
        "ip route show table all", "ip -6 route show table all", "ip -o addr", "sysctl -a",
    ]  # fmt: skip
    text = "\n".join(lab.run("b", "sh", "-c", f"{c} 2>/dev/null", check=False).stdout for c in commands)
    text = re.sub(r"\[\d+:\d+\]|counter packets \d+ bytes \d+|^#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"expires \d+sec|valid_lft \S+|preferred_lft \S+", "", text)
    text = re.sub(r"chain \w+ \{\s+type [^}]*policy accept;\s*\}", "", text)
    text = re.sub(r"table ip6? \w+ \{\s*\}", "", text)
    text = re.sub(r"^\*\w+\n(:\w+ ACCEPT\s*\n)*COMMIT$", "", text, flags=re.MULTILINE)
    changing = ("random", "nf_conntrack_count", "file-nr", "dentry-state", "inode", "ns_last_pid", "fs.", "kernel.")
    return "\n".join(
        line.strip() for line in text.splitlines() if line.strip() and not any(word in line for word in changing)
    )


@pytest.fixture
def firewall(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    for command in HOST_FIREWALLS[request.param]:
        lab.run("b", *command.split())
    yield request.param
    lab.run("b", "nft", "flush", "ruleset")
    for command in ("-P FORWARD ACCEPT", "-F", "-X"):
        lab.run("b", "iptables-legacy", *command.split())


@pytest.mark.parametrize("firewall", HOST_FIREWALLS, indirect=True)
def test_router_carries_traffic_beside_the_hosts_firewall_and_leaves_it_as_it_was(
    nodes: tuple[Node, Node], lab: Lab, firewall: str
) -> None:
    """RT-12, RT-13: after a proper end, and after SIGKILL and --cleanup."""
    _, b = nodes
    before = state(lab)
    for number in (signal.SIGTERM, signal.SIGKILL):
        b.start()
        wait_until(lambda: caller(lab, "a", HOST_V4) == "10.20.30.1", 20, "a host behind b to be reached")
        assert "drops forwarded" not in str(b.status()["Health"])
        b.stop(number)
        if number == signal.SIGKILL:
            assert state(lab) != before
            lab.run("b", program("meshd"), "--cleanup", f"--statedir={b.directory}", f"--socket={b.socket}")
        assert state(lab) == before


def test_firewall_that_drops_what_is_forwarded_is_named(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-12: nobody's accept overrules another table's drop, so the user must know whose it is."""
    _, b = nodes
    b.start()
    try:
        wait_until(lambda: caller(lab, "a", HOST_V4) == "10.20.30.1", 20, "a host behind b to be reached")
        lab.run("b", "nft", "add", "table", "inet", "strict")
        chain = "add chain inet strict through { type filter hook forward priority 5; policy drop; }"
        lab.run("b", "nft", *chain.split())
        wait_until(lambda: "table inet strict, chain through" in str(b.status()["Health"]), 10, "the warning")
        lab.run("b", "nft", "delete", "table", "inet", "strict")
        firewalld = (
            "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; "
        )
        lab.run("b", "nft", f"{firewalld} ct state established accept; reject with icmpx admin-prohibited; }}; }}")
        wait_until(lambda: "chain filter_FORWARD" in str(b.status()["Health"]), 10, "the warning about a final reject")
        lab.run("b", "nft", "delete", "table", "inet", "firewalld")
        lab.run("b", "ip", "link", "set", "lan0", "down")
        lab.run("b", "ip", "link", "set", "lan0", "up")
        wait_until(lambda: "inet strict" not in str(b.status()["Health"]), 10, "the warning to go")
    finally:
        b.stop()


def test_providers_network_in_the_range_goes_on_working(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-12: a host whose own network is in 100.64.0.0/10 must not lose it, by whatever kind of rules."""
    _, b = nodes
    for host, address in (("b", "100.72.0.1/24"), ("c", "100.72.0.2/24")):
        lab.run(host, "ip", "address", "add", address, "dev", "lan0" if host == "b" else "eth0")
    for kind in ("nftables", "iptables"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TS_DEBUG_FIREWALL_MODE", kind)
            b.start()
        try:
            wait_until(lambda: any("meshd-" in trace for trace in b.host_traces()), 15, "the rules")
            assert lost_percent(lab, "b", "100.72.0.2", 3) == 0
            assert lost_percent(lab, "c", "100.72.0.1", 3) == 0
        finally:
            b.stop()


def test_tunnel_mtu_is_that_of_the_environment(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-12, RT-16: TS_DEBUG_MTU."""
    _, b = nodes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TS_DEBUG_MTU", "1400")
        b.start()
    try:
        wait_until(lambda: re.search("mesh0: .* mtu 1400", lab.run("b", "ip", "link").stdout), 15, "the MTU")
    finally:
        b.stop()


def test_routing_that_a_network_service_throws_away_is_put_back(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-14: some take all that is not in their own files for left-overs when they start."""
    a, _ = nodes
    before = a.host_traces()
    for command in (
        "ip rule flush",
        "ip route flush table 52",
        "ip -6 route flush table 52",
        "ip addr flush dev mesh0",
        "ip link set mesh0 down",
    ):
        lab.run("a", *command.split())
    for rule in ("32766 lookup main", "32767 lookup default"):
        lab.run("a", "ip", "rule", "add", "priority", *rule.split())
    wait_until(lambda: "own" in str(a.status()["Health"]), 5, "the complaint about the link")
    lab.run("a", "ip", "link", "set", "mesh0", "up")
    wait_until(lambda: sorted(a.host_traces()) == sorted(before), 10, "everything to be back")
    assert "down" not in str(a.status()["Health"])
    settled = a.output.count("routing_restored")
    a.mesh("set", "--accept-routes=false")
    a.mesh("set", "--accept-routes")
    wait_until(lambda: LAN_V4 in "".join(a.host_traces()), 10, "the route, by our own doing")
    assert a.output.count("routing_restored") == settled
