"""The commands as a user runs them, against a server process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from meshd.coord.main import main; main()"]


class Server:
    def __init__(self, state: Path) -> None:
        self.state = state
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--state-dir", str(self.state), "--listen", self.listen, "--stun-port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments, "--state-dir", str(self.state)], capture_output=True, text=True, timeout=30
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("cli") / "state")
    yield server
    server.process.terminate()
    assert server.process.wait(10) == 0
    server.process.communicate()


def test_cli_serve_prints_one_line_that_joins_a_machine(server):
    assert re.fullmatch(
        rf"mesh up --login-server=http://{re.escape(server.listen)} "
        r"--auth-key=mesh-auth-[0-9a-f]{12}-[0-9a-f]{64}\n",
        server.line,
    )
    assert (server.state.stat().st_mode & 0o777) == 0o700


def test_cli_authkeys_are_made_listed_without_secret_and_revoked(server):
    key = server.run("authkeys", "create", "--reusable", "--tags", "tag:a,tag:b", "--expiry", "1d12h").stdout.strip()
    assert re.fullmatch(r"mesh-auth-[0-9a-f]{12}-[0-9a-f]{64}", key)
    listed = server.run("authkeys", "list", "--json").stdout
    assert key.rpartition("-")[2] not in listed
    entry = json.loads(listed)[-1]
    assert (entry["tags"], entry["reusable"], entry["state"]) == (["tag:a", "tag:b"], True, "valid")
    assert "revoked" in server.run("authkeys", "revoke", key).stdout
    assert json.loads(server.run("authkeys", "list", "--json").stdout)[-1]["state"] == "revoked"
    for path in server.state.iterdir():
        if path.is_file():
            assert key.rpartition("-")[2].encode() not in path.read_bytes()


def test_cli_users_come_and_go(server):
    assert "carol" in server.run("users", "create", "carol").stdout
    again = server.run("users", "create", "carol")
    assert (again.returncode, again.stdout) == (4, "")
    assert "already" in again.stderr
    ambiguous = server.run("authkeys", "create")
    assert ambiguous.returncode == 2
    assert "--user" in ambiguous.stderr
    assert server.run("authkeys", "create", "--user", "carol").returncode == 0
    assert server.run("users", "delete", "carol").returncode == 0
    assert server.run("users", "list").stdout.splitlines()[0].split() == ["ID", "NAME", "NODES", "CREATED"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nodes", "delete", "nobody"), 3, "no node 'nobody'"),
        (("nodes", "approve", "0123"), 3, "no machine waits"),
        (("users", "delete", "nobody"), 3, "no user"),
        (("authkeys", "revoke", "999"), 3, "no auth key"),
        (("authkeys", "create", "--tags", "web"), 2, "not a tag"),
        (("authkeys", "create", "--expiry", "soon"), 2, "not a duration"),
        (("nodes", "frobnicate"), 2, "No such command"),
    ],
)
def test_cli_mistakes_have_their_exit_code_and_a_reason(server, arguments, status, words):
    done = server.run(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_cli_without_a_server_says_how_to_start_one(tmp_path):
    done = subprocess.run(
        [*COMMAND, "nodes", "list", "--state-dir", str(tmp_path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 6
    assert "mesh-coord serve" in done.stderr


def test_cli_second_server_on_the_same_state_is_refused(server):
    done = server.run("serve", "--listen", "127.0.0.1:1")
    assert done.returncode == 2
    assert "already runs" in done.stderr


def test_cli_policy_check_set_and_get(server, tmp_path):
    policy = tmp_path / "p.hujson"
    policy.write_text('{\n  "acls": [{"action": "drop"}]\n}')
    bad = subprocess.run([*COMMAND, "policy", "check", str(policy)], capture_output=True, text=True, timeout=30)
    assert bad.returncode == 2
    assert f"{policy}:2:12: 'src' is missing" in bad.stderr
    assert server.run("policy", "set", str(policy)).returncode == 2
    policy.write_text('{"acls": [], /* nobody */ }')
    assert server.run("policy", "set", str(policy)).returncode == 0
    assert server.run("policy", "get").stdout.strip() == policy.read_text()


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xfe\xff{}", "is no UTF-8 text"), (b" " * 9_000_000, "at most 1048576 characters")]
)
@pytest.mark.parametrize("command", ["check", "set"])
def test_cli_policy_file_that_cannot_be_one_is_refused_by_name(server, tmp_path, command, content, words):
    policy = tmp_path / "p.hujson"
    policy.write_bytes(content)
    state = ("--state-dir", str(server.state)) if command == "set" else ()
    done = subprocess.run(
        [*COMMAND, "policy", command, str(policy), *state], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert str(policy) in done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_cli_policy_with_names_that_nobody_has_is_taken_and_tells_them(server, tmp_path):
    """A mistyped host or user was taken for a user, without a word."""
    policy = tmp_path / "p.hujson"
    policy.write_text(
        '{"groups": {"group:a": ["default", "ghost"]}, "hosts": {"db": "10.0.0.1"},'
        '"tagOwners": {"tag:a": ["group:a"]},'
        '"acls": [{"action": "accept", "src": ["*", "10.1.0.0/16", "tag:a"], "dst": ["db:22", "dv:22", "group:a:80"]}]}'
    )
    done = server.run("policy", "set", str(policy))
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["'dv'", "'ghost'"]


def test_cli_policy_of_the_largest_size_is_taken_however_it_is_escaped(server, tmp_path):
    policy = tmp_path / "p.hujson"
    policy.write_text("{} // " + "\N{LOCK}" * 1_000_000)
    assert server.run("policy", "set", str(policy)).returncode == 0
    assert server.run("policy", "get").stdout.strip() == policy.read_text()


def test_cli_output_that_cannot_be_written_is_told_in_one_line(server):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "nodes", "list", "--state-dir", str(server.state)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert done.stderr == "mesh-coord: cannot write the output: No space left on device\n"


def test_cli_serve_goes_on_when_nobody_takes_the_line_that_joins_a_machine(tmp_path):
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [
                *COMMAND,
                "serve",
                "--state-dir",
                str(tmp_path),
                "--listen",
                "127.0.0.1:0",
                "--stun-port",
                "0",
                "--url",
                "http://127.0.0.1:1",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stderr is not None
        assert "serving" in process.stderr.readline()
        assert "cannot write the output" in process.stderr.readline()
        listed = [*COMMAND, "nodes", "list", "--state-dir", str(tmp_path)]
        assert subprocess.run(listed, capture_output=True, timeout=30).returncode == 0
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def test_cli_serve_writes_no_key_into_the_journal(tmp_path):
    """Everybody who may read the journal could join machines."""
    out = tmp_path / "journal"
    options = ["serve", "--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0", "--stun-port", "0"]
    options += ["--url", "http://127.0.0.1:1"]
    with out.open("w") as journal:
        status = os.fstat(journal.fileno())
        process = subprocess.Popen(
            [
                *COMMAND,
                "serve",
                "--state-dir",
                str(tmp_path / "state"),
                "--listen",
                "127.0.0.1:0",
                "--stun-port",
                "0",
                "--url",
                "http://127.0.0.1:1",
            ],
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stdout=journal,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stderr is not None
        assert "serving" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate()
    assert out.read_text() == "mesh up --login-server=http://127.0.0.1:1 --auth-key=$(mesh-coord authkeys create)\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--url", "nonsense"), ("--listen", "nowhere"), ("--policy", "/nonexistent"), ("--base-domain", "..")],
)
def test_cli_serve_bad_option_is_refused_in_one_line(tmp_path, option, value):
    options = {"--listen": "127.0.0.1:1", option: value}
    arguments = [part for pair in options.items() for part in pair]
    done = subprocess.run(
        [*COMMAND, "serve", "--state-dir", str(tmp_path), *arguments], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert value in done.stderr
    assert "Traceback" not in done.stderr


def test_cli_server_killed_keeps_what_it_answered(tmp_path):
    server = Server(tmp_path / "state")
    key = server.run("authkeys", "create").stdout.strip()
    server.run("users", "create", "dora")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server.process.communicate()
    server.start()
    assert "dora" in server.run("users", "list").stdout
    assert key.split("-")[2] in server.run("authkeys", "list").stdout
    server.process.terminate()
    assert server.process.wait(10) == 0
    server.process.communicate()
