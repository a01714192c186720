"""The DNS of a real host while a node runs on it: programs resolve names, and afterwards everything is as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, program, running_lab, wait_until

pytestmark = pytest.mark.netns

BEFORE = b"# set by hand\nnameserver 198.51.100.1\nsearch lan.test\noptions timeout:2 attempts:3\n\t# no newline"
OURS = "nameserver 100.100.100.100"
UPSTREAM = Path(__file__).with_name("upstream.py")


def own_file(lab: Lab, host: str) -> Path:
    """What programs of the host see as /etc/resolv.conf."""
    return Path(f"/etc/netns/{lab.name}-{host}/resolv.conf")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("hostdns"), "mt-hostdns") as made:
        for host in ("a", "b"):
            file = own_file(made, host)
            file.write_bytes(BEFORE)
            file.chmod(0o664)
            os.utime(file, ns=(0, 1_700_000_000_000_000_001))
        server = made.start("net", "upstream.log", program("python"), str(UPSTREAM), "198.51.100.1")
        wait_until(lambda: "ready" in server.output, 10, "the name server")
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def b(lab: Lab, coordinator: Coordinator) -> Node:
    node = Node(lab, "b")
    node.up(coordinator)
    return node


@pytest.fixture
def a(lab: Lab, coordinator: Coordinator, b: Node) -> Iterator[Node]:
    """A node on a host that resolves names of the mesh; its host is as before when the test is over."""
    before = facts(lab)
    node = Node(lab, "a")
    node.up(coordinator)
    pointed(lab)
    wait_until(lambda: node.peer("node-b"), 10, "a to know b")
    yield node
    assert node.stop() == 0
    assert facts(lab) == before


def facts(lab: Lab, host: str = "a") -> tuple[object, ...]:
    file = own_file(lab, host)
    status = file.stat()
    return file.read_bytes(), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino


def pointed(lab: Lab, host: str = "a") -> None:
    wait_until(lambda: OURS in own_file(lab, host).read_text(), 10, "the host to be pointed at the node's resolver")


def given_back(lab: Lab) -> None:
    wait_until(lambda: own_file(lab, "a").read_bytes() == BEFORE, 10, "the host to have its resolver back")


def resolved(lab: Lab, name: str) -> str:
    """The address as every program of the host finds it."""
    found = lab.run("a", "getent", "ahostsv4", name, check=False).stdout.split()
    return found[0] if found else ""


def test_host_programs_resolve_names_of_the_mesh_and_all_others(lab: Lab, a: Node, b: Node) -> None:
    """DN-11: direct, in a file that is a mount; the resolver of the host stays in charge of all other names."""
    fqdn = b.status()["Self"]["DNSName"]
    assert resolved(lab, fqdn) == resolved(lab, "node-b") == b.ip
    assert resolved(lab, "www.example") == "192.0.2.1"
    assert lab.run("a", "getent", "hosts", b.ip).stdout.split()[1].rstrip(".") == fqdn.rstrip(".")
    text = own_file(lab, "a").read_text()
    assert f"search {fqdn.rstrip('.').partition('.')[2]} lan.test\n" in text
    assert "\noptions timeout:2 attempts:3\n" in text
    assert lab.run("a", "ping", "-c", "1", "-W", "5", "node-b").returncode == 0


def test_accept_dns_false_gives_the_host_its_file_back(lab: Lab, a: Node, b: Node) -> None:
    """DN-02: --accept-dns=false, and true again."""
    a.mesh("set", "--accept-dns=false")
    given_back(lab)
    assert resolved(lab, "node-b") != b.ip
    a.mesh("set", "--accept-dns=true")
    pointed(lab)
    wait_until(lambda: resolved(lab, "node-b") == b.ip, 10, "the name")


def test_down_gives_the_host_its_file_back(lab: Lab, a: Node, b: Node) -> None:
    a.mesh("down")
    given_back(lab)
    assert resolved(lab, "www.example") == "192.0.2.1"
    a.mesh("up")
    pointed(lab)
    wait_until(lambda: resolved(lab, "node-b") == b.ip, 10, "the name")


def test_status_shows_what_the_host_has_without_us(lab: Lab, a: Node) -> None:
    """DN-14: LocalAPI dns-osconfig."""
    shown = a.mesh("dns", "status").stdout
    assert "198.51.100.1" in shown
    assert "lan.test" in shown
    assert "100.100.100.100" not in shown


def test_killed_then_cleaned_up_is_as_before(lab: Lab, a: Node) -> None:
    """DN-11: everything is in the journal before it is done."""
    a.stop(signal.SIGKILL)
    assert OURS in own_file(lab, "a").read_text()
    lab.run("a", program("meshd"), "--cleanup", f"--statedir={a.directory}", f"--socket={a.socket}")
    assert own_file(lab, "a").read_bytes() == BEFORE
    a.start()
    pointed(lab)


def test_killed_with_lost_state_then_cleaned_up_is_as_before(lab: Lab, a: Node, tmp_path: Path) -> None:
    """A container's state is gone; the file that its host lent it is not."""
    a.stop(signal.SIGKILL)
    lab.run("a", program("meshd"), "--cleanup", f"--statedir={tmp_path}", f"--socket={a.socket}")
    assert own_file(lab, "a").read_bytes() == BEFORE
    a.start()
    pointed(lab)


def test_killed_then_started_finds_its_server_by_name_and_keeps_the_original(lab: Lab, a: Node, b: Node) -> None:
    """A start must not ask a resolver that is not there yet; the original is not what a killed daemon wrote."""
    a.stop(signal.SIGKILL)
    a.start()
    pointed(lab)
    wait_until(lambda: resolved(lab, "node-b") == b.ip, 10, "the name")
    assert resolved(lab, "www.example") == "192.0.2.1"


def test_overwritten_file_is_told_and_taken_back(lab: Lab, a: Node, b: Node) -> None:
    """DN-11: trampling; section 9: resolv-conf-overwritten."""
    before = own_file(lab, "a").read_bytes()
    lab.run("a", "sh", "-c", "printf 'nameserver 198.51.100.1\\n' >/etc/resolv.conf")
    pointed(lab)
    health = wait_until(lambda: a.status()["Health"], 10, "a warning")
    assert any("/etc/resolv.conf overwritten" in text for text in health), health
    wait_until(lambda: resolved(lab, "node-b") == b.ip, 10, "the name")
    # What the other program wrote is the host's own now; for the next tests it is the first one again.
    a.mesh("down")
    wait_until(lambda: own_file(lab, "a").read_bytes() == b"nameserver 198.51.100.1\n", 10, "the other's file")
    own_file(lab, "a").write_bytes(BEFORE)
    os.utime(own_file(lab, "a"), ns=(0, 1_700_000_000_000_000_001))
    a.mesh("up")
    wait_until(lambda: own_file(lab, "a").read_bytes() == before, 10, "our file")


def test_host_with_nothing_but_a_link_local_resolver_finds_all_names(lab: Lab, a: Node, b: Node) -> None:
    """DN-11: what a router that speaks IPv6 alone announces."""
    before = own_file(lab, "a").read_bytes()
    a.mesh("down")
    given_back(lab)
    lab.run("a", "ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
    for end in ("near", "far"):
        lab.run("a", "ip", "link", "set", end, "up")
    lab.run("a", "ip", "addr", "add", "fe80::53/64", "dev", "near", "nodad")
    server = lab.start("a", "near.log", program("python"), str(UPSTREAM), "fe80::53%near")
    wait_until(lambda: "ready" in server.output, 10, "the name server")
    own_file(lab, "a").write_bytes(b"nameserver fe80::53%near\n")
    a.mesh("up")
    pointed(lab)
    wait_until(lambda: resolved(lab, "node-b") == b.ip, 10, "the name")
    assert resolved(lab, "www.example") == "192.0.2.1"
    assert "udp www.example" in server.output
    assert "fe80::53%near" in a.mesh("dns", "status").stdout
    a.mesh("down")
    wait_until(lambda: OURS not in own_file(lab, "a").read_text(), 10, "the host's own file")
    server.stop()
    lab.run("a", "ip", "link", "del", "near")
    own_file(lab, "a").write_bytes(BEFORE)
    os.utime(own_file(lab, "a"), ns=(0, 1_700_000_000_000_000_001))
    a.mesh("up")
    wait_until(lambda: own_file(lab, "a").read_bytes() == before, 10, "our file")


def test_read_only_file_leaves_everything_working_but_names(lab: Lab, coordinator: Coordinator, b: Node) -> None:
    """Section 9: dns-set-os-config-failed."""
    node = Node.__new__(Node)
    read_only = 'mount -o remount,bind,ro /etc/resolv.conf && exec "$0" "$@"'
    genuine = lab.start

    def start(host: str, log: str, *command: str, environment: dict[str, str] | None = None) -> object:
        return genuine(host, log, "sh", "-c", read_only, *command, environment=environment)

    lab.start = start  # type: ignore[method-assign, assignment]
    try:
        Node.__init__(node, lab, "a", name="node-readonly")
    finally:
        lab.start = genuine  # type: ignore[method-assign]
    before = facts(lab)
    node.up(coordinator)
    wait_until(lambda: node.peer("node-b"), 10, "it to know b")
    health = wait_until(lambda: node.status()["Health"], 10, "a warning")
    assert any("cannot write /etc/resolv.conf: Read-only file system" in text for text in health), health
    assert any("--accept-dns=false" in text for text in health), health
    node.ping(b.ip, direct=False)
    assert "node-b" in node.mesh("dns", "query", "node-b").stdout
    node.mesh("set", "--accept-dns=false")
    wait_until(lambda: not node.status()["Health"], 10, "the warning to go")
    node.mesh("logout")
    assert node.stop() == 0
    assert facts(lab) == before


def test_namespace_without_a_file_of_its_own_leaves_the_machines_alone() -> None:
    """DN-11: `ip netns exec` without /etc/netns/NAME/resolv.conf. Asks only: nothing here could write."""
    name = "mt-hostdns-bare"
    subprocess.run(["ip", "netns", "add", name], check=True)
    ask = "from meshd.host.linux.dnsfacts import foreign_problem; print(foreign_problem())"
    try:
        command = ["ip", "netns", "exec", name, program("python"), "-c", ask]
        bare = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        own = Path("/etc/netns", name)
        own.mkdir(parents=True)
        (own / "resolv.conf").write_text("# none\n")
        lent = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)
    assert "one of the whole machine" in bare
    assert "/etc/netns/NAME/resolv.conf" in bare
    assert lent.strip() == ""
    here = subprocess.run([program("python"), "-c", ask], check=True, capture_output=True, text=True).stdout
    assert here.strip() == ""


def test_lab_hosts_have_files_of_their_own(lab: Lab) -> None:
    """No daemon of these tests can reach the machine's /etc/resolv.conf."""
    machine = Path("/etc/resolv.conf")
    identity = (machine.stat().st_dev, machine.stat().st_ino) if machine.exists() else None
    for host in ("net", "ra", "rb", "a", "b"):
        seen = lab.run(host, "stat", "-L", "-c", "%d %i", "/etc/resolv.conf").stdout.split()
        assert tuple(map(int, seen)) != identity
