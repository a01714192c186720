"""What the shells are told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.cli.main import main

STATUS = {"Peer": {"k": {"DNSName": "node-a.mesh.test."}, "l": {"DNSName": "evil\x1b."}}}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["stat"], ["status"]),
        (["d"], ["down", "dns", "drive"]),
        (["dns", ""], ["status", "query"]),
        (["dns", "q"], ["query"]),
        (["debug", "re"], ["restun", "rebind", "reload-config", "resolve"]),
        (["status", "--j"], ["--json"]),
        (["status", "-j"], ["-json"]),
        (["up", "--hostn"], ["--hostname"]),
        (["up", "--host-r"], []),
        (["up", "--hostname", "st"], []),
        (["up", "--hostname=x", "--ss"], ["--ssh"]),
        (["--socket=/x", "whoi"], ["whois"]),
        (["nosuch", "x"], []),
        (["completion", "_"], []),
    ],
)
def test_complete_words_of_the_tree(mesh_to_stub, words: list[str], found: list[str]) -> None:
    """CL-08."""
    got = mesh_to_stub("completion", "__complete", "--flags=false", "--descs=false", "--", *words)
    assert got.code == 0
    *lines, directive = got.out.splitlines()
    assert lines == found
    assert directive in (":0", ":4")


def test_complete_names_of_nodes(mesh_to_stub, stub) -> None:
    """CL-08: where a node is wanted, its name is suggested; a daemon that is away is no error."""
    stub.says("GET status", STATUS)
    for command in ("ping", "ip", "ssh", "nc"):
        got = mesh_to_stub("completion", "__complete", "--flags=false", "--", command, "no")
        assert got.out == "node-a.mesh.test\n:4\n"
    assert mesh_to_stub("completion", "__complete", "--", "--socket=/none", "ping", "no").out == ":4\n"


def test_complete_profiles(mesh_to_stub, stub) -> None:
    """CL-08: `tailscale switch` suggests them, too."""
    stub.says("GET profiles/", [{"ID": "df87", "Name": "work"}, {"ID": "ab12", "Name": "evil\x1b"}])

    def found(*words: str) -> list[str]:
        return mesh_to_stub("completion", "__complete", "--flags=false", "--", "switch", *words).out.splitlines()

    assert found("") == ["df87", "work", "ab12", "remove", ":4"]
    assert found("w") == ["work", ":4"]
    assert found("remove", "d") == ["df87", ":4"]
    assert found("work", "") == [":4"]
    stub.says("GET profiles/", b"profiles access denied\n", 403)
    assert found("") == ["remove", ":4"]


def test_complete_names_of_a_daemon_that_hangs_are_none(silent: str, capsys, monkeypatch) -> None:
    """The key was pressed in a shell, which waits."""
    monkeypatch.setattr("meshd.cli.completion._PATIENCE_S", 0.03)
    assert main([f"--socket={silent}", "completion", "__complete", "--", "ping", "no"]) == 0
    assert capsys.readouterr().out == ":4\n"


def test_complete_values_of_flags(mesh_to_stub, stub) -> None:
    """CL-08: exit nodes by name, and what has a fixed set of values."""
    stub.says(
        "GET status", {"Peer": {"k": {"DNSName": "node-a.x."}, "l": {"DNSName": "out.x.", "ExitNodeOption": True}}}
    )
    for words, found in (
        (["set", "--exit-node="], "--exit-node=out.x\n"),
        (["set", "--exit-node", "o"], "out.x\n"),
        (["up", "-netfilter-mode=no"], "-netfilter-mode=nodivert\n"),
        (["file", "get", "--conflict", ""], "skip\noverwrite\nrename\n"),
    ):
        assert mesh_to_stub("completion", "__complete", "--", *words).out == found + ":4\n"
    assert mesh_to_stub("completion", "__complete", "--", "up", "--auth-key=file:").out == ":0\n"


def test_complete_describes(mesh_to_stub) -> None:
    got = mesh_to_stub("completion", "__complete", "--", "whoa")
    assert got.out == "whoami\tShow the machine and user that this node is\n:4\n"
    got = mesh_to_stub("completion", "__complete", "--", "version", "")
    assert "--json\tprint JSON\n" in got.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(mesh_to_stub, shell: str, tmp_path: Path) -> None:
    """CL-08."""
    script = mesh_to_stub("completion", shell, "--descs=false").out
    assert "@" not in script.replace("$@", "").replace("[@]", "").replace("(@)", "")
    if shutil.which(shell) is None:
        return
    path = tmp_path / "script"
    path.write_text(script)
    assert subprocess.run([shell, "-n", str(path)], capture_output=True, timeout=20).stderr == b""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes(mesh_to_stub, tmp_path: Path) -> None:
    """CL-08: through a real shell."""
    (tmp_path / "mesh").write_text(f'#!/bin/sh\nexec {sys.executable} -m meshd.cli.main "$@"\n')
    (tmp_path / "mesh").chmod(0o755)
    script = mesh_to_stub("completion", "bash").out
    asking = f"{script}\nPATH={tmp_path}:$PATH\n" + (
        'try() { COMP_LINE="$1"; COMP_POINT=${#1}; _mesh; echo "${COMPREPLY[*]}"; }\n'
        "COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
        "try 'mesh who'\ntry 'mesh dns '\ntry 'mesh status --act'\ntry 'mesh up --login-server=http://x:1 --ss'\n"
        # What bash replaces begins after the "=".
        "try 'mesh set --netfilter-mode=no'\ntry 'mesh file get --conflict='\ntry 'mesh file get --conflict s'\n"
        "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}\ntry 'mesh set --netfilter-mode=no'\n"
    )
    done = subprocess.run(["bash", "-c", asking], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "whois whoami", "status query", "--active", "--ssh", "nodivert", "skip overwrite rename", "skip",
        "--netfilter-mode=nodivert",
    ]  # fmt: skip
    assert done.stderr == ""
