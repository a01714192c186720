"""Environment variables from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.envfile import apply_env_file
from tests.unit.daemon.process import running


def apply(tmp_path: Path, text: str) -> tuple[dict[str, str], str]:
    path = tmp_path / "env"
    path.write_text(text)
    environment = {"TS_DEBUG_ENV_FILE": str(path)}
    problem = apply_env_file(environment)
    del environment["TS_DEBUG_ENV_FILE"]
    return environment, problem


def test_env_file_lines_comments_and_quotes(tmp_path: Path) -> None:
    """TS_DEBUG_ENV_FILE names a file of KEY=VALUE lines; env:TS_DEBUG_ENV_FILE."""
    text = '# a comment\n\nA=1\n B = two words \nC="x\\ty \\"q\\" \\u00e9"\nno equals sign\n=nothing\nD=\nE=a=b\n'
    found, problem = apply(tmp_path, text)
    assert problem == ""
    assert found == {"A": "1", "B": "two words", "C": 'x\ty "q" é', "D": "", "E": "a=b"}


@pytest.mark.parametrize("value", ['"open', '"a" "b"', '"\\q"', '"\\UFFFFFFFF"', '"a"b'])
def test_env_file_bad_quotes_name_the_line_and_hide_the_value(tmp_path: Path, value: str) -> None:
    found, problem = apply(tmp_path, f"A=1\nKEY={value}\nB=2\n")
    assert found == {"A": "1"}
    assert "line 2: the quoted value of KEY is malformed" in problem
    assert value not in problem


def test_env_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert f"{path} of TS_DEBUG_ENV_FILE cannot be read" in apply_env_file({"TS_DEBUG_ENV_FILE": str(path)})
    path.write_bytes(b"\xff\xfe")
    assert "is no UTF-8 text" in apply_env_file({"TS_DEBUG_ENV_FILE": str(path)})
    assert apply_env_file({}) == ""


@given(st.text(max_size=40))
def test_env_file_any_value_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_text("K=" + value, encoding="utf-8", errors="replace")
    environment = {"TS_DEBUG_ENV_FILE": str(path)}
    problem = apply_env_file(environment)
    assert ("K" in environment) or problem


def test_daemon_takes_its_environment_from_a_file_and_tells_what_is_wrong_with_it(tmp_path: Path) -> None:
    """DM-01: the file is read first of all; warn:apply-disk-config when it is bad, and the node starts."""
    path = tmp_path / "env"
    path.write_text('TS_DEBUG_FAKE_HEALTH_ERROR=from the file\nTS_LOGS_DIR=/x\nBAD="\n')
    with running(tmp_path, env={"TS_DEBUG_ENV_FILE": str(path)}) as daemon:
        health = daemon.client.status(peers=False)["Health"]
        wanted = "An error occurred applying the Tailscale envknob configuration stored on disk: "
        assert f"{wanted}{path}, line 3: the quoted value of BAD is malformed" in health
        assert "environment_file_bad" in daemon.output
        assert daemon.output.count("environment_without_effect variables=TS_LOGS_DIR") == 1
        assert daemon.stop() == 0
