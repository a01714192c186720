"""The shell scripts, as far as they can be tried without root and without building anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUDO_STUB = '#!/bin/sh\nshift\nprintf "%s\\n" "$@"\n'
PYTHON_STUB = """#!/bin/sh
echo "$@" >>{calls}
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp {whole} "$3/bin/python" ;;
    "-m pip --version") exit {pip} ;;
esac
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose path has a space, with nothing to build in it."""
    made = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", made / "scripts")
    for name in ("setup.py", "pyproject.toml", "meshd/_fast/x.pyx"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
    program(tmp_path / "bin/dpkg-query", "#!/bin/sh\necho install ok installed\n")
    program(tmp_path / "bin/apt-get", "#!/bin/sh\nexit 100\n")
    return made


def run(checkout: Path, *command: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout.parent}/bin:{os.environ['PATH']}"
    known = {name: value for name, value in os.environ.items() if not name.startswith("MESHD_")}
    return subprocess.run(
        command, cwd=cwd or checkout, env=known | {"PATH": path} | more, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", ["quickstart", "test"])
def test_script_becomes_root_from_whichever_folder_it_is_called(checkout: Path, name: str) -> None:
    program(checkout.parent / "bin/id", "#!/bin/sh\necho 1000\n")
    program(checkout.parent / "bin/sudo", SUDO_STUB)
    done = run(checkout, f"./{name}", cwd=checkout / "scripts")
    assert done.stdout.splitlines() == [str(checkout / "scripts" / name)]


@pytest.mark.parametrize(("name", "option"), [("quickstart", "--help"), ("setup", "everything")])
def test_script_with_an_unknown_option_says_what_there_is(checkout: Path, name: str, option: str) -> None:
    done = run(checkout, f"scripts/{name}", option)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: scripts/{name} [")


def test_setup_builds_once_and_prints_the_environment_only(checkout: Path, tmp_path: Path) -> None:
    calls, whole, outer = tmp_path / "calls", tmp_path / "whole", tmp_path / "outer"
    program(whole, PYTHON_STUB.format(calls=calls, whole=whole, pip=0))
    program(outer, PYTHON_STUB.format(calls=calls, whole=whole, pip=0))
    for turn in range(2):
        done = run(checkout, "scripts/setup", "test", MESHD_PYTHON=str(outer))
        assert (done.returncode, done.stdout) == (0, f"{checkout}/.venv\n"), done.stderr
        builds = [line for line in calls.read_text().splitlines() if "pip install" in line]
        assert len(builds) == 1, turn
    assert run(checkout, "scripts/setup", MESHD_PYTHON=str(outer)).returncode == 0  # is in what "test" needs
    assert calls.read_text().count("pip install") == 1


def test_setup_finishes_an_environment_that_was_interrupted(checkout: Path, tmp_path: Path) -> None:
    calls, whole = tmp_path / "calls", tmp_path / "whole"
    program(whole, PYTHON_STUB.format(calls=calls, whole=whole, pip=0))
    program(checkout / ".venv/bin/python", PYTHON_STUB.format(calls=calls, whole=whole, pip=1))
    done = run(checkout, "scripts/setup", MESHD_PYTHON=str(whole))
    assert done.returncode == 0, done.stderr
    assert f"-m venv {checkout}/.venv" in calls.read_text().splitlines()


def test_check_stops_when_its_tools_cannot_be_set_up(checkout: Path) -> None:
    program(checkout.parent / "bin/dpkg-query", "#!/bin/sh\nexit 1\n")
    done = run(checkout, "scripts/check")
    assert done.returncode == 1 if os.geteuid() else done.returncode == 100
    assert "check: failed" not in done.stdout


@pytest.mark.netns
def test_labs_with_similar_names_stand_side_by_side(tmp_path: Path) -> None:
    name = f"l{os.getpid()}"
    labs = [name, f"x-{name}"]
    try:
        for lab in reversed(labs):  # the first to go ends in the name of the other
            made = subprocess.run([ROOT / "scripts/lab", "up"], env=os.environ | {"MESHD_LAB": lab}, check=False)
            assert made.returncode == 0
        subprocess.run([ROOT / "scripts/lab", "down"], env=os.environ | {"MESHD_LAB": name}, check=True)
        again = subprocess.run([ROOT / "scripts/lab", "down"], env=os.environ | {"MESHD_LAB": name}, check=False)
        assert again.returncode == 0  # though x-NAME is there
        assert Path(f"/run/netns/x-{name}-a").exists()
    finally:
        for lab in labs:
            subprocess.run([ROOT / "scripts/lab", "down"], env=os.environ | {"MESHD_LAB": lab}, check=False)
