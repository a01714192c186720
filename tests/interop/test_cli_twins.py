"""The official `tailscale` and `mesh`, asked the same on one LocalAPI: both end alike and print alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.testing.localapi import LocalApiThread

TAILSCALE = shutil.which("tailscale")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(TAILSCALE is None, reason="tailscale is not on PATH"),
]

SAME_OUTPUT = [
    "status",
    "status --peers=false",
    "ip",
    "ip -6 node-a",
    "whois 100.64.0.1",
    "whoami",
    "switch --list",
    "exit-node suggest",
    "lock",
    "lock status --json",
    "serve status",
    "serve status --json",
    "funnel status",
    "dns status --json",
    "metrics print",
    "bugreport",
    "appc-routes",
    "debug prefs",
    "debug derp-map",
    "debug via 1 10.0.0.0/24",
    "debug via fd7a:115c:a1e0:b1a:0:1:a00:0/120",
    "debug component-logs magicsock",
    "debug localapi GET prefs",
]

SAME_END = [
    "status extra",
    "exit-node",
    "exit-node list",
    "dns",
    "dns query",
    "dns status",
    "drive list",
    "file",
    "file cp x",
    "file get /nosuch",
    "lock init",
    "lock log",
    "lock add x",
    "lock disable x",
    "cert",
    "cert nope",
    "id-token x",
    "metrics nosuch",
    "debug",
    "debug nosuch",
    "debug restun",
    "debug via",
    "debug set-expire",
    "debug localapi GET nosuch",
    "bugreport a b",
    "nc node-a x",
    "ssh",
    "wait x",
    "nosuch",
    "status --nosuch",
]

HELP = ["--help", "dns status --help", "serve", "completion", "debug --help"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "s")) as server:
        yield server


def _ask(program: list[str], api: LocalApiThread, words: str) -> tuple[int, str, str]:
    env = {key: value for key, value in os.environ.items() if key != "SSH_CLIENT"}
    command = [*program, f"--socket={api.path}", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("Warning: client version")]
    return done.returncode, done.stdout, "\n".join(errors)


def _both(api: LocalApiThread, words: str) -> tuple[tuple[int, str, str], tuple[int, str, str]]:
    return _ask([str(TAILSCALE)], api, words), _ask([sys.executable, "-m", "meshd.cli.main"], api, words)


@pytest.mark.parametrize("words", SAME_OUTPUT)
def test_twins_print_the_same(api: LocalApiThread, words: str) -> None:
    official, own = _both(api, words)
    assert own[0] == official[0]
    assert own[1].split() == official[1].split()


@pytest.mark.parametrize("words", SAME_END)
def test_twins_end_alike(api: LocalApiThread, words: str) -> None:
    """CL-02: the same exit code, and something on the same streams."""
    official, own = _both(api, words)
    assert (own[0], bool(own[1]), bool(own[2])) == (official[0], bool(official[1]), bool(official[2]))


@pytest.mark.parametrize("words", HELP)
def test_twins_help_ends_well(api: LocalApiThread, words: str) -> None:
    """CL-02: help exits 0; ours is on stdout, where it can be paged, the official one on stderr."""
    official, own = _both(api, words)
    assert own[0] == official[0] == 0
    assert "USAGE" in own[1]
    assert "USAGE" in official[1] + official[2]
