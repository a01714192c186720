"""What a user sees when something is wrong: a clear text, a daemon that stays up, nothing lost."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.labhosts import COORD_IP, Coordinator, Lab, Node, program, running_lab, wait_until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("bad"), "mt-bad") as made:
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture
def node(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(lab, "a", name=f"n{abs(hash(request.node.name)) % 10**8}")
    yield made
    if made.process is not None and made.process.running:
        assert made.stop() == 0
    assert made.host_traces() == []


def up(node: Node, *flags: str) -> subprocess.CompletedProcess[str]:
    return node.mesh("up", *flags, check=False)


def assert_clear(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed, said why, and showed no traceback."""
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


def assert_alive(node: Node) -> None:
    assert node.status()["BackendState"] in ("NeedsLogin", "Starting", "NoState", "Stopped")
    assert "Traceback" not in node.output


def test_up_wrong_auth_key_is_refused_and_said(node: Node, coordinator: Coordinator) -> None:
    """LK-06, LK-20."""
    done = up(node, f"--login-server={coordinator.url}", "--auth-key=mesh-auth-000000000000-nonsense", "--timeout=5s")
    assert_clear(done, "auth")
    assert_alive(node)
    node.up(coordinator, "--reset")
    assert node.status()["BackendState"] == "Running"


def test_up_nobody_listens_at_the_control_url(node: Node) -> None:
    done = up(node, f"--login-server=http://{COORD_IP}:9", "--auth-key=x", "--timeout=3s")
    assert_clear(done, COORD_IP)
    assert_alive(node)
    assert any(COORD_IP in text for text in node.status()["Health"])


def test_up_unknown_host_name_is_named(node: Node) -> None:
    done = up(node, "--login-server=http://no-such-host.invalid", "--auth-key=x", "--timeout=3s")
    assert_clear(done, "no-such-host.invalid")
    assert_alive(node)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}}",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"",
    ],
    ids=["no http", "no json", "status 500", "closed"],
)
def test_up_server_that_is_no_control_server(node: Node, lab: Lab, answer: bytes) -> None:
    code = (
        "import socket,sys\ns=socket.create_server(('198.51.100.1',0))\nprint(s.getsockname()[1],flush=True)\n"
        "while True:\n c,_=s.accept()\n c.settimeout(2)\n"
        " try:\n  c.recv(4096)\n  c.sendall(bytes.fromhex(sys.argv[1]))\n except OSError: pass\n c.close()\n"
    )
    log = f"fake-{len(answer)}.log"
    server = lab.start("net", log, program("python"), "-c", code, answer.hex())
    port = wait_until(lambda: server.output.strip(), 5, "the server's port")
    try:
        done = up(node, f"--login-server=http://{COORD_IP}:{port}", "--auth-key=x", "--timeout=3s")
        assert_clear(done)
        assert_alive(node)
    finally:
        server.stop()


@pytest.mark.parametrize("content", [b'{"_machinekey": "cHJpdmtleTo', b"root:x:0:0\n"], ids=["half", "not ours"])
def test_start_with_a_damaged_state_file(lab: Lab, coordinator: Coordinator, content: bytes) -> None:
    """SM-21: the file is kept, the daemon runs and explains."""
    name = f"state{len(content)}"
    directory = lab.directory / name
    directory.mkdir()
    path = directory / "meshd.state"
    path.write_bytes(content)
    node = Node(lab, "b", name=name)
    try:
        status = node.status()
        assert status["BackendState"] == "NoState"
        assert any(str(path) in text for text in status["Health"])
        done = up(node, f"--login-server={coordinator.url}", f"--auth-key={coordinator.auth_key}", "--timeout=5s")
        assert_clear(done, str(path))
        assert path.read_bytes() == content
    finally:
        assert node.stop() == 0
    assert path.read_bytes() == content


def test_second_daemon_on_the_same_socket_refuses(node: Node, lab: Lab) -> None:
    """LA-02."""
    second = lab.run("a", program("meshd"), f"--statedir={node.directory}", f"--socket={node.socket}", check=False)
    assert second.returncode == 1
    assert "already" in second.stderr
    assert "Traceback" not in second.stderr
    assert node.status()["BackendState"]


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--nonsense"], 2, "flag provided but not defined"),
        (["--port=70000"], 2, "expected a port"),
        (["--tun="], 1, "is no interface name"),
        (["--tun=name-far-too-long-for-linux"], 1, "is no interface name"),
        (["--state=vault:x"], 2, "no store of kind"),
        (["--debug=192.0.2.1:9"], 2, "expected a loopback address"),
        (["--statedir=/proc/nowhere"], 1, "state directory"),
    ],
)
def test_daemon_bad_flag_ends_with_a_clear_error(
    lab: Lab, tmp_path: Path, flags: list[str], status: int, text: str
) -> None:
    base = [f"--statedir={tmp_path}", f"--socket={tmp_path}/sock"]
    done = lab.run("b", program("meshd"), *base, *flags, check=False, seconds=20)
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_hostile_datagrams_do_not_disturb_the_node(node: Node, coordinator: Coordinator, lab: Lab) -> None:
    """Truncated, oversized, random and replayed datagrams on the UDP port: dropped and counted."""
    node.up(coordinator)
    code = (
        "import os,socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nto=('192.168.11.2',41641)\n"
        "heads=[b'',b'\\1\\0\\0\\0',b'\\2\\0\\0\\0',b'\\3\\0\\0\\0',b'\\4\\0\\0\\0',b'TS\\xf0\\x9f\\x92\\xac',"
        "bytes.fromhex('01010000')+bytes.fromhex('2112a442')]\n"
        "for n in list(range(0,200))+[1472,9000,60000]:\n for h in heads:\n"
        "  s.sendto((h+os.urandom(n))[:max(n,len(h))],to)\n"
    )
    lab.run("net", program("python"), "-c", code)
    assert node.status()["BackendState"] == "Running"
    assert "Traceback" not in node.output
    assert "internal_error" not in node.output


def test_cli_without_daemon_says_so(lab: Lab, tmp_path: Path) -> None:
    """CL-05."""
    done = lab.run("a", program("mesh"), f"--socket={tmp_path}/none", "status", check=False)
    assert_clear(done, "doesn't appear to be running")


def test_full_disk_keeps_the_login_that_was_stored(lab: Lab, coordinator: Coordinator, tmp_path: Path) -> None:
    """INV-2: a write that fails is said, and the old state stays whole."""
    name = "full"
    directory = lab.directory / name
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=32", "tmpfs", str(directory)], check=True)
    try:
        node = Node(lab, "b", name=name)
        node.up(coordinator)
        key = node.status()["Self"]["PublicKey"]
        (directory / "fill").write_bytes(bytes(40 << 10))
        name_number = 0
        done = node.mesh("set", "--hostname=" + "h" * 60, check=False)
        while done.returncode == 0:
            with contextlib.suppress(OSError), (directory / "fill").open("ab", buffering=0) as more:
                more.write(bytes(4096))
            name_number += 1
            done = node.mesh("set", f"--hostname={'h' * 50}{name_number}", check=False)
        assert "cannot write the state file" in done.stdout + done.stderr
        assert node.stop() == 0
        for extra in directory.glob("fill*"):
            extra.unlink()
        node.start()
        wait_until(lambda: node.status()["BackendState"] == "Running", 15, "the node to run again")
        assert node.status()["Self"]["PublicKey"] == key
        node.stop()
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
