"""The state of a running daemon: profiles, kills while they change, disks that are full or broken."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, answers, running_lab, wait_until

pytestmark = pytest.mark.netns

USERSPACE = "--tun=userspace-networking"
KILLS = 24
SPREAD_S = 0.06
"""A switch is over in less; the kills are spread over it."""


AS_USER = """
import contextlib, io, os, pwd, sys
from meshd.cli.main import main
# What the command needs is loaded while it can be read.
with contextlib.redirect_stdout(io.StringIO()):
    main([sys.argv[2], "switch", "--list"])
    main([sys.argv[2], "status"])
os.setgroups([])
os.setgid(pwd.getpwnam(sys.argv[1]).pw_gid)
os.setuid(pwd.getpwnam(sys.argv[1]).pw_uid)
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("profiles"), "mt-prof") as made:
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


def log_in_as(node: Node, coordinator: Coordinator, user: str) -> None:
    """A further login profile, of a user of its own."""
    coordinator.command("users", "create", user)
    key = coordinator.command("authkeys", "create", "--user", user, "--reusable").split()[-1]
    node.mesh("login", f"--login-server={coordinator.url}", f"--auth-key={key}", f"--hostname={user}", "--timeout=30s")


def profiles(node: Node) -> dict[str, dict[str, Any]]:
    """Login profiles by account."""
    return {one["account"]: one for one in json.loads(node.mesh("switch", "--list", "--json").stdout)}


def selected(node: Node) -> str:
    return next((name for name, one in profiles(node).items() if one["selected"]), "")


def running_key(node: Node) -> str:
    wait_until(lambda: node.status()["BackendState"] == "Running", 20, "the node to run")
    return str(node.status()["Self"]["PublicKey"])


@pytest.fixture(scope="module")
def node(lab: Lab, coordinator: Coordinator) -> Node:
    """Two profiles, the second one in use."""
    made = Node(lab, "a", USERSPACE, name="two")
    made.up(coordinator)
    log_in_as(made, coordinator, "alice")
    return made


def test_profiles_are_made_switched_renamed_and_removed(node: Node, coordinator: Coordinator) -> None:
    """react:ProfileName, PS-09, PS-10, PS-11, PS-12: each with its key and name."""
    assert selected(node) == "alice"
    alice = running_key(node)
    assert node.mesh("switch", "default").stdout.splitlines()[-1] == "Success."
    default = running_key(node)
    assert default != alice
    node.mesh("set", "--nickname=office")
    assert 'Already on account "office"' in node.mesh("switch", "office").stdout
    node.mesh("switch", "alice")
    assert running_key(node) == alice
    assert 'profile name "office" already in use' in node.mesh("set", "--nickname=office", check=False).stderr
    log_in_as(node, coordinator, "bob")
    assert profiles(node).keys() == {"default", "alice", "bob"}
    node.mesh("switch", "remove", "bob")
    assert node.status()["BackendState"] == "NeedsLogin"
    assert profiles(node).keys() == {"default", "alice"}
    assert node.mesh("switch", "nobody", check=False).returncode == 1
    node.mesh("switch", "office")
    assert running_key(node) == default


def test_profiles_login_that_fails_goes_back_to_the_former_profile(node: Node, coordinator: Coordinator) -> None:
    """PS-11: and leaves no profile behind."""
    before, key = profiles(node), running_key(node)
    arguments = (f"--login-server={coordinator.url}", "--auth-key=hskey-nonsense", "--timeout=10s")
    assert node.mesh("login", *arguments, check=False).returncode == 1
    assert running_key(node) == key
    assert profiles(node) == before


def test_profiles_operator_may_switch_and_others_may_not(node: Node) -> None:
    """PP-13, react:OperatorUser, PS-10: a user without rights of his own, by those that each profile gives."""
    for name in ("alice", "default"):
        node.mesh("switch", name)
        node.mesh("set", "--operator=nobody")

    def switch(user: str, name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_USER, user, "--socket=sock", "switch", name]
        return subprocess.run(command, cwd=node.directory, capture_output=True, text=True, timeout=30, check=False)

    done = switch("nobody", "alice")
    assert done.stdout.endswith("Success.\n"), done.stderr
    refused = switch("daemon", "default")
    assert refused.returncode == 1
    assert "denied" in refused.stderr
    assert selected(node) == "alice"


def test_profiles_daemon_killed_during_a_switch_loses_no_key(node: Node) -> None:
    """INV-2, PS-10: SIGKILL at many moments of a switch; each time the next daemon runs as one of the two."""
    keys = {}
    for name in ("default", "alice"):
        node.mesh("switch", name)
        keys[name] = running_key(node)
    names = {one["id"]: account for account, one in profiles(node).items()}
    chance = random.Random(7)
    seen: set[bool] = set()
    for turn in range(3 * KILLS):
        if turn >= KILLS and len(seen) == 2:
            break
        # A slow machine needs more time for a switch than we thought.
        spread = SPREAD_S if turn < KILLS else 1.0
        target = next(i for i, account in names.items() if account != selected(node))
        request = threading.Thread(target=post, args=(node.socket, f"/localapi/v0/profiles/{target}"))
        request.start()
        time.sleep(turn % KILLS * spread / KILLS + chance.random() * 0.002)
        node.stop(signal.SIGKILL)
        request.join(10)
        node.start()
        listed = profiles(node)
        assert listed.keys() == {"default", "alice"}, f"turn {turn}"
        now = selected(node)
        assert running_key(node) == keys[now], f"turn {turn}"
        seen.add(now == names[target])
    assert seen == {True, False}, "the kills came all before or all after the change"
    left = [name for name in os.listdir(node.directory) if name.startswith(".meshd.state.")]
    assert len(left) <= 3 * KILLS


def post(path: Path, target: str) -> None:
    """A request that may be cut off at any moment."""
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
            sock.sendall(f"POST {target} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nContent-Length: 0\r\n\r\n".encode())
            sock.recv(100)
        except ConnectionError:
            return


def test_state_disk_full_keeps_the_node_running_and_says_what_failed(lab: Lab, coordinator: Coordinator) -> None:
    """INV-2, PS-02: a small tmpfs, filled to the last byte; nothing is half written, and all is well later."""
    directory = lab.directory / "full"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "none", str(directory)], check=True)
    try:
        node = Node(lab, "b", USERSPACE, name="full")
        node.up(coordinator)
        key = running_key(node)
        fill(directory / "ballast")
        failed = node.mesh("set", "--hostname=other", check=False)
        assert failed.returncode == 1
        assert "No space left on device" in failed.stderr
        assert "Nothing was changed" in failed.stderr
        assert running_key(node) == key
        assert node.mesh("get", "hostname").stdout.strip() == "full"
        assert node.stop(signal.SIGKILL) != 0
        node.start()
        assert running_key(node) == key
        (directory / "ballast").unlink()
        node.mesh("set", "--hostname=other")
        assert node.mesh("get", "hostname").stdout.strip() == "other"
        node.stop()
        modes = {file.name: file.stat().st_mode & 0o777 for file in directory.glob("meshd.state*")}
        assert modes == {"meshd.state": 0o600, "meshd.state.key": 0o600}
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_state_read_only_file_system_goes_on_with_what_there_is(lab: Lab, coordinator: Coordinator) -> None:
    """INV-2: an image that boots read-only joins with the keys it has."""
    directory = lab.directory / "fixed"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(directory)], check=True)
    sockets = lab.directory / "fixed-run"
    sockets.mkdir()
    try:
        node = Node(lab, "b", USERSPACE, name="fixed")
        node.up(coordinator)
        key = running_key(node)
        node.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
        node.socket = sockets / "sock"
        node.start()
        assert running_key(node) == key
        failed = node.mesh("set", "--hostname=other", check=False)
        assert failed.returncode == 1
        assert "Read-only file system" in failed.stderr
        node.stop()
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.parametrize("spoil", ["cut", "text"])
def test_state_that_is_damaged_is_explained_and_kept(lab: Lab, coordinator: Coordinator, spoil: str) -> None:
    """SM-21: the daemon runs, answers, does not log in and changes nothing in the file."""
    node = Node(lab, "b", USERSPACE, name=f"bad-{spoil}")
    node.up(coordinator)
    node.stop()
    path = node.directory / "meshd.state"
    whole = path.read_bytes()
    bad = whole[: len(whole) // 2] if spoil == "cut" else b"garbage\n"
    path.write_bytes(bad)
    node.start()
    status = node.status()
    assert status["BackendState"] == "NoState"
    assert any(str(path) in text and "restart meshd" in text for text in status["Health"])
    refused = node.mesh("up", f"--auth-key={coordinator.auth_key}", "--timeout=5s", check=False)
    assert refused.returncode == 1
    assert str(path) in refused.stderr
    assert "Traceback" not in node.output + refused.stderr
    node.stop()
    assert path.read_bytes() == bad
    path.write_bytes(whole)
    node.start()
    running_key(node)
    node.stop()


@pytest.mark.parametrize("loss", ["gone", "of another host"])
def test_state_whose_sealing_key_is_lost_asks_for_a_login_and_keeps_the_file(
    lab: Lab, coordinator: Coordinator, loss: str
) -> None:
    """SM-21: never a daemon that does not start."""
    node = Node(lab, "b", USERSPACE, name=f"lost-{len(loss)}")
    node.up(coordinator)
    old = running_key(node)
    node.stop()
    key = node.directory / "meshd.state.key"
    sealed = (node.directory / "meshd.state").read_bytes()
    if loss == "gone":
        key.unlink()
    else:
        key.write_text("meshd-state-key 1 systemd-creds\n" + "QUFB" * 40 + "\n")
    node.start()
    assert node.status()["BackendState"] == "NeedsLogin"
    assert any("has to log in again" in text for text in node.status()["Health"])
    assert (node.directory / "meshd.state.kept-1").read_bytes() == sealed
    node.up(coordinator)
    assert running_key(node) != old
    node.stop()
    assert answers(node.socket) is False
