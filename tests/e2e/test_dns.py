"""The resolver of a node as programs of its host meet it: asked by dig, over the tunnel interface."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.labhosts import COORD_URL, Coordinator, Lab, Node, Process, program, running_lab, wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(not shutil.which("dig"), reason="dig is not on PATH (Debian: bind9-dnsutils)"),
]

V4, V6 = "100.100.100.100", "fd7a:115c:a1e0::53"
UPSTREAM = Path(__file__).with_name("upstream.py")
METRICS = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9000/debug/metrics').read().decode())"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("dns"), "mt-dns") as made:
        for host in ("a", "b"):
            Path(f"/etc/netns/{made.name}-{host}/resolv.conf").write_text("nameserver 198.51.100.1\n")
        yield made


@pytest.fixture(scope="module")
def upstream(lab: Lab) -> Process:
    server = lab.start("net", "upstream.log", program("python"), str(UPSTREAM), "198.51.100.1")
    wait_until(lambda: "ready" in server.output, 5, "the name server")
    return server


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, upstream: Process, coordinator: Coordinator) -> tuple[Node, Node]:
    made = Node(lab, "a", "--tun=mesh0", "--debug=127.0.0.1:9000"), Node(lab, "b")
    for node in made:
        node.up(coordinator)
    wait_until(lambda: made[0].peer("node-b"), 10, "a to know b")
    return made


def dig(lab: Lab, *arguments: str, host: str = "a", check: bool = True) -> str:
    return lab.run(host, "dig", "+time=8", "+tries=1", *arguments, check=check).stdout


def short(lab: Lab, *arguments: str) -> list[str]:
    return dig(lab, "+short", *arguments).split()


def counter(lab: Lab, name: str) -> int:
    text = lab.run("a", program("python"), "-c", METRICS).stdout
    found = re.search(rf"^meshd_{name} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("server", [V4, V6])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dns_names_of_the_network(nodes: tuple[Node, Node], lab: Lab, server: str, transport: str) -> None:
    """DN-01, DN-04, DN-12: A, PTR, short names, "no such name" and "no such record"; UDP and TCP, IPv4 and IPv6."""
    _, b = nodes
    asked = (f"@{server}", transport)
    name = b.status()["Self"]["DNSName"]
    suffix = name.partition(".")[2]
    assert short(lab, *asked, name) == short(lab, *asked, "node-b") == [b.ip]
    assert short(lab, *asked, "-x", b.ip) == [name]
    assert short(lab, *asked, "-x", b.mesh("ip", "-6").stdout.strip()) == [name]
    missing = dig(lab, *asked, f"nobody.{suffix}")
    assert "status: NXDOMAIN" in missing
    assert re.search(rf"{re.escape(suffix)}\s+10\s+IN\s+SOA", missing)
    empty = dig(lab, *asked, name, "AAAA")
    assert "status: NOERROR" in empty
    assert "ANSWER: 0, AUTHORITY: 1" in empty


def test_dns_other_names_are_asked_of_the_hosts_resolver(nodes: tuple[Node, Node], lab: Lab, upstream: Process) -> None:
    """DN-12."""
    assert short(lab, f"@{V4}", "one.example") == ["192.0.2.1"]
    assert short(lab, f"@{V6}", "+tcp", "two.example") == ["192.0.2.1"]
    failed = dig(lab, f"@{V4}", "servfail.example")
    assert "status: SERVFAIL" in failed, failed
    assert short(lab, f"@{V4}", "sPeLLed.ExamplE") == ["192.0.2.1"]
    a, _ = nodes
    assert "192.0.2.1" in a.mesh("dns", "query", "three.example").stdout
    asked = upstream.output
    assert "mesh" not in asked
    assert "udp one.example" in asked


def test_dns_long_answers(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12: whoever takes little over UDP is told to come by TCP, and gets all of it there; others get it at once."""
    assert len(short(lab, f"@{V4}", "big.example")) == 200
    assert len(short(lab, f"@{V6}", "+tcp", "big2.example", "big.example")) == 201
    whole = dig(lab, f"@{V4}", "+ignore", "+bufsize=4096", "big.example")
    assert " tc" not in whole.split("flags:")[1].split(";")[0]
    assert "ANSWER: 200" in whole
    assert "ANSWER: 200" in dig(lab, f"@{V6}", "+ignore", "+bufsize=4096", "big.example")
    cut = dig(lab, f"@{V4}", "+ignore", "+bufsize=1232", "big.example")
    assert " tc" in cut.split("flags:")[1].split(";")[0]


def test_dns_forged_answers_are_not_taken(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12: another source, another number, another question."""
    before = counter(lab, "dns_stray_datagrams")
    assert short(lab, f"@{V4}", "spoof.example") == ["192.0.2.1"]
    assert counter(lab, "dns_stray_datagrams") == before + 2, "what came from another source never arrived"


def test_dns_resolver_that_does_not_answer(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12: a failure in five seconds; names of the network do not wait for it."""
    dead = lab.start("a", "dead.log", "dig", "+time=8", "+tries=1", f"@{V4}", "dead.example")
    assert short(lab, f"@{V4}", "node-b")
    wait_until(lambda: not dead.running, 9, "an answer")
    assert "status: SERVFAIL" in dead.output


FLOOD = """
import socket, struct, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(int(sys.argv[1])):
    question = bytes([4]) + b"dead" + bytes([6]) + b"%06d" % n + bytes([0, 0, 1, 0, 1])
    sock.sendto(struct.pack("!6H", n & 65535, 256, 1, 0, 0, 0) + question, ("100.100.100.100", 53))
"""


def test_dns_flood_is_bounded_and_others_are_served(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12."""
    lab.run("a", program("python"), "-c", FLOOD, "3000")
    assert short(lab, f"@{V4}", "node-b")
    assert counter(lab, "dns_refused_too_many") > 0
    wait_until(lambda: short(lab, f"@{V4}", "after.example") == ["192.0.2.1"], 10, "the flood to be over")


def test_dns_other_name_servers_of_the_host_are_no_obstacle(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12: port 53 of all addresses of this host is theirs, before us or after, and ours works all the same."""
    other = lab.start("a", "other.log", program("python"), str(UPSTREAM), "0.0.0.0")
    wait_until(lambda: "ready" in other.output, 5, "another name server")
    try:
        assert short(lab, "@127.0.0.1", "x.example") == ["192.0.2.1"]
        for transport in ("+tcp", "+notcp"):
            assert short(lab, f"@{V4}", transport, "node-b")
        assert "node-b" not in other.output
    finally:
        other.stop()


SPOOF = """
import socket, struct, sys
def packet(source):
    question = struct.pack("!6H", 9, 256, 1, 0, 0, 0) + bytes([6]) + b"node-b" + bytes([0, 0, 1, 0, 1])
    udp = struct.pack("!4H", 4000, 53, 8 + len(question), 0) + question
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton("100.100.100.100"))
    return head + udp
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for source in sys.argv[1:]:
    sock.sendto(packet(source), ("100.100.100.100", 0))
"""


def test_dns_is_not_for_peers(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12: packets of a peer that this host forwards to the resolver are refused, also of one that names itself."""
    _, b = nodes
    before = counter(lab, "dns_refused_source")
    lab.run("a", program("python"), "-c", SPOOF, b.ip, "100.100.100.100")
    wait_until(lambda: counter(lab, "dns_refused_source") >= before + 1, 5, "refusals")
    answered = dig(lab, f"@{V4}", "node-a", host="b")
    assert "SERVER: 100.100.100.100" in answered, "b has its own"


def test_dns_serves_containers_of_the_host(nodes: tuple[Node, Node], lab: Lab) -> None:
    """DN-12: those whose addresses the host translates, as Docker does, and those it forwards as they are."""
    inner = f"{lab.name}-box"
    run = ["ip", "netns", "exec"]

    def sh(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    sh("ip", "netns", "add", inner)
    try:
        lab.run("a", "ip", "link", "add", "box0", "type", "veth", "peer", "name", "eth0", "netns", inner)
        lab.run("a", "ip", "addr", "add", "172.31.0.1/24", "dev", "box0")
        lab.run("a", "ip", "link", "set", "box0", "up")
        lab.run("a", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        sh(*run, inner, "ip", "addr", "add", "172.31.0.2/24", "dev", "eth0")
        sh(*run, inner, "ip", "link", "set", "eth0", "up")
        sh(*run, inner, "ip", "route", "add", "default", "via", "172.31.0.1")
        _, b = nodes
        ask = [*run, inner, "dig", "+short", "+time=5", "+tries=1", f"@{V4}", "node-b"]
        assert sh(*ask).split() == [b.ip]
        lab.run("a", "nft", "add table ip box; add chain ip box post { type nat hook postrouting priority 100; }; "
                "add rule ip box post ip saddr 172.31.0.0/24 masquerade")  # fmt: skip
        assert sh(*ask).split() == sh(*ask, "+tcp").split() == [b.ip]
    finally:
        lab.run("a", "nft", "delete", "table", "ip", "box", check=False)
        lab.run("a", "ip", "link", "del", "box0", check=False)
        lab.run("a", "sysctl", "-qw", "net.ipv4.ip_forward=0")
        sh("ip", "netns", "del", inner)


def test_dns_lives_without_the_coordination_server(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    """DN-12: also after a start from the kept network map; and nothing is answered by a node that is down."""
    a, b = nodes
    ip = b.ip
    coordinator.process.stop()
    assert short(lab, f"@{V4}", "node-b") == [ip]
    a.stop()
    a.start()
    wait_until(lambda: ip in dig(lab, f"@{V4}", "+time=1", "node-b", check=False), 15, "names from the kept map")
    a.mesh("down")
    assert lab.run("a", "dig", "+time=1", "+tries=1", f"@{V4}", "node-b", check=False).returncode != 0


def online(coordinator: Coordinator, name: str) -> bool:
    listed = json.loads(coordinator.command("nodes", "list", "--json"))
    return any(node["name"] == name and node["online"] for node in listed)


def test_dns_finds_the_coordination_server_while_the_exit_node_is_away(tmp_path: Path) -> None:
    """DN-12, EX-07: all questions go through the exit node, but for those without which nothing would be mended."""
    with running_lab(tmp_path, "mt-dnsx") as lab:
        Path(f"/etc/netns/{lab.name}-a/resolv.conf").write_text("nameserver 198.51.100.1\n")
        server = lab.start("net", "upstream.log", program("python"), str(UPSTREAM), "198.51.100.1")
        wait_until(lambda: "ready" in server.output, 5, "the name server")
        coordinator = Coordinator(lab)
        a, b = Node(lab, "a"), Node(lab, "b")
        b.up(coordinator)
        lab.run("b", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        b.mesh("set", "--advertise-exit-node")
        coordinator.url = "http://coord.example:8080"
        a.up(coordinator)
        coordinator.command("nodes", "approve-routes", "node-b", "--all")
        wait_until(lambda: a.peer("node-b").get("ExitNodeOption"), 10, "b to be an exit node")
        a.mesh("set", f"--exit-node={b.ip}")
        wait_until(lambda: "192.0.2.1" in dig(lab, f"@{V4}", "far.example", check=False), 20, "questions through b")
        b.stop()
        asked = server.output.count("coord.example")
        coordinator.url = COORD_URL
        coordinator.restart()
        wait_until(lambda: server.output.count("coord.example") > asked, 30, "a to look for the server again")
        assert short(lab, f"@{V4}", "coord.example") == ["198.51.100.1"]
        assert "status: SERVFAIL" in dig(lab, f"@{V4}", "private.example")
        assert "private.example" not in server.output, "nothing else leaves beside the exit node"
        wait_until(lambda: online(coordinator, "node-a"), 30, "a to be back")
