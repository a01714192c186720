"""The files for packagers, as far as they can be tried without installing them."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from meshd.cli.commands.wait_command import COMMAND as WAIT
from meshd.coord.cli.serve import serve
from meshd.daemon.flags import parse_flags
from meshd.relay.main import cli as relay

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "scripts" / "packaging"
SERVERS = {"mesh-coord": serve, "mesh-relay": relay}
UNITS = ("meshd.service", "meshd-wait-online.service", "meshd-online.target", *(f"{name}.service" for name in SERVERS))


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit(name: str) -> configparser.RawConfigParser:
    parser = _Unit(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.read_string((PACKAGING / name).read_text())
    return parser


def test_unit_starts_and_cleans_up_with_flags_that_the_daemon_has() -> None:
    """SD-02, SD-05, file:/etc/default/meshd, file:/run/meshd/meshd.sock."""
    service = unit("meshd.service")["Service"]
    text = (PACKAGING / "meshd.service").read_text()
    program, *arguments = service["ExecStart"].replace("${PORT}", "41641").replace(" $FLAGS", "").split()
    flags = parse_flags(arguments, {})
    assert program == "/usr/sbin/meshd"
    assert (flags.statedir, flags.socket, flags.port) == ("/var/lib/meshd", "/run/meshd/meshd.sock", 41641)
    program, *arguments = service["ExecStopPost"].split()
    undo = parse_flags(arguments, {})
    assert (program, undo.cleanup, undo.statedir) == ("/usr/sbin/meshd", True, flags.statedir)
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["EnvironmentFile"] == "-/etc/default/meshd"
    assert (service["Type"], service["Restart"]) == ("notify", "on-failure")
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("meshd", "0755")
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("meshd", "0700")
    assert unit("meshd.service")["Install"]["WantedBy"] == "multi-user.target"
    after = unit("meshd.service")["Unit"]["After"]
    for name in ("network-pre.target", "NetworkManager.service", "systemd-resolved.service"):
        assert name in after
    assert "Environment=PORT=41641" in text


def test_unit_leaves_the_daemon_what_it_needs() -> None:
    """SD-02: routes and marks, packets for captures, the TUN device, the TPM, and /etc/resolv.conf."""
    service = unit("meshd.service")["Service"]
    text = (PACKAGING / "meshd.service").read_text()
    assert {"CAP_NET_ADMIN", "CAP_NET_RAW"} <= set(service["CapabilityBoundingSet"].split())
    families = {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"}
    assert set(service["RestrictAddressFamilies"].split()) == families
    assert service["ProtectSystem"] == "yes"
    assert "DeviceAllow=/dev/net/tun rw" in text
    assert "DeviceAllow=/dev/tpmrm0 rw" in text


def test_settings_file_is_read_by_both_kinds_of_init(tmp_path: Path) -> None:
    """SD-02: PORT and FLAGS."""
    done = subprocess.run(
        ["sh", "-c", f'. {PACKAGING}/meshd.default; echo "$PORT|$FLAGS"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == "41641|\n"


def test_wait_online_unit_waits_with_the_command_line() -> None:
    """SD-04: a target for services that need the mesh, and a preset."""
    service = unit("meshd-wait-online.service")
    program, command = service["Service"]["ExecStart"].split()
    assert (program, service["Service"]["Type"]) == ("/usr/bin/mesh", "oneshot")
    assert command == WAIT.name
    assert service["Unit"]["Requires"] == service["Unit"]["After"] == "meshd.service"
    target = unit("meshd-online.target")["Unit"]
    assert target["Requires"] == target["After"] == "meshd-wait-online.service"
    for line in (PACKAGING / "meshd.preset").read_text().splitlines():
        verb, name = line.split()
        assert verb in ("enable", "disable")
        assert (PACKAGING / name).exists()


@pytest.mark.parametrize("name", SERVERS)
def test_server_unit_starts_with_the_flags_of_its_settings_as_nobody_in_particular(name: str) -> None:
    """A server of the Internet writes to its own directory only, opens low ports, and gives up on wrong flags."""
    service = unit(f"{name}.service")["Service"]
    settings = subprocess.run(
        ["sh", "-c", f'. {PACKAGING}/{name}.default; echo "$FLAGS"'], capture_output=True, text=True, check=True
    )
    assert settings.stdout.count("--") >= 1
    program, *arguments = service["ExecStart"].replace("$FLAGS", settings.stdout).split()
    assert program == f"/usr/sbin/{name}"
    if name == "mesh-coord":
        assert arguments.pop(0) == "serve"
    given = SERVERS[name].make_context(name, arguments).params
    assert str(given["state_dir"]) == f"/var/lib/{service['StateDirectory']}"
    assert (service["EnvironmentFile"], service["Environment"]) == (f"-/etc/default/{name}", "FLAGS=")
    assert (service["DynamicUser"], service["ProtectSystem"], service["StateDirectoryMode"]) == (
        "yes",
        "strict",
        "0700",
    )
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("busy", ["--listen=203.0.113.1:80 --stun-port=-1", "--listen=127.0.0.1:0 --stun-port={port}"])
def test_server_unit_whose_address_is_not_there_yet_is_started_again(tmp_path: Path, name: str, busy: str) -> None:
    """Early after a boot the host may not have it, and a server of before may not have left it."""
    flags = {"mesh-coord": ("serve", "--url=http://192.0.2.1"), "mesh-relay": ("--hostname=192.0.2.1",)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = busy.format(port=other.getsockname()[1]).split()
        done = subprocess.run(
            [str(Path(sys.executable).with_name(name)), *flags[name], f"--state-dir={tmp_path}", *taken],
            capture_output=True,
            text=True,
            timeout=60,
        )
    given_up = int(unit(f"{name}.service")["Service"]["RestartPreventExitStatus"])
    assert done.returncode not in (0, given_up), done.stderr


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """SD-02, SD-04: where systemd's own checker is installed, it finds nothing."""
    checker = shutil.which("systemd-analyze")
    if checker is None:
        return
    for name in UNITS:
        text = (PACKAGING / name).read_text()
        (tmp_path / name).write_text(re.sub(r"/usr/s?bin/mesh[-a-z]*", "/bin/true", text))
    done = subprocess.run(
        [checker, "verify", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    found = [line for line in done.stderr.splitlines() if "mesh" in line]
    assert found == []


@pytest.mark.parametrize("function", ["start_pre", "stop_post"])
def test_openrc_script_cleans_up_before_and_after(tmp_path: Path, function: str) -> None:
    """SD-03."""
    daemon, calls = tmp_path / "meshd", tmp_path / "calls"
    daemon.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    daemon.chmod(0o755)
    script = (PACKAGING / "meshd.openrc").read_text()
    assert script.startswith("#!/sbin/openrc-run\n")
    stub = f'checkpath() {{ echo "checkpath $@" >> {calls}; }}\n'
    tried = stub + script.replace("/usr/sbin/meshd", str(daemon)) + f'{function}\necho "$command_args"\n'
    done = subprocess.run(
        ["sh", "-eu"],
        input=tried,
        capture_output=True,
        text=True,
        check=True,
        env={"PORT": "7", "FLAGS": "--verbose=1"},
    )
    arguments = done.stdout.split()
    flags = parse_flags(arguments, {})
    assert (flags.port, flags.verbose, flags.statedir) == (7, 1, "/var/lib/meshd")
    done_calls = calls.read_text().splitlines()
    undo = parse_flags(done_calls[-1].split(), {})
    assert (undo.cleanup, undo.statedir) == (True, "/var/lib/meshd")
    if function == "start_pre":
        assert done_calls[0] == "checkpath --directory --mode 0755 /run/meshd"


def test_openrc_script_can_reload(tmp_path: Path) -> None:
    """SD-03: as with systemd, what SIGHUP reads again."""
    script = (PACKAGING / "meshd.openrc").read_text()
    assert 'extra_started_commands="reload"' in script
    stub = 'ebegin() { :; }\neend() { return $1; }\nstart-stop-daemon() { echo "$@"; }\n'
    done = subprocess.run(["bash"], input=f"{stub}{script}\nreload\n", capture_output=True, text=True, check=True)
    assert done.stdout == "--signal HUP --pidfile /run/meshd.pid\n"


def test_wheel_has_neither_test_doubles_nor_generated_c() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    find, excluded = tool["packages"]["find"], tool["exclude-package-data"]
    modules = [path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("meshd/**/__init__.py")]
    left_out = [name for name in modules if any(fnmatch(name, pattern) for pattern in find["exclude"])]
    assert left_out == ["meshd.testing"]
    # Without this they came back as data of the package above, because the source distribution has them.
    assert "testing/*" in excluded["meshd"]
    assert "*.c" in excluded["meshd._fast"]


def test_source_distribution_has_what_builds_tests_and_installs_it() -> None:
    lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    grafted = {words[1] for words in lines if words[0] == "graft"}
    assert grafted == {".ci", "meshd/testing", "perf", "scripts", "tests"}
    assert all((ROOT / name).is_dir() for name in grafted)
    included = [pattern for words in lines if words[0] == "include" for pattern in words[1:]]
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "Dockerfile"):
        assert any(fnmatch(name, pattern) for pattern in included)
    # C that an older Cython made would be taken for that of the sources.
    assert ["exclude", "meshd/_fast/*.c"] in lines


def test_extra_for_tests_has_what_they_compile_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    cython = next(text for text in project["build-system"]["requires"] if text.startswith("Cython"))
    assert cython in project["project"]["optional-dependencies"]["test"]


def test_build_makes_unfinished_c_files_anew(tmp_path: Path) -> None:
    (tmp_path / "whole.c").write_text("int x;\n" * 100 + "#endif /* Py_PYTHON_H */\n\n")
    (tmp_path / "short.c").write_text("/* G")
    (tmp_path / "empty.c").write_text("")
    (tmp_path / "cut.c").write_text("#endif /* Py_PYTHON_H */\n" + "int x;\n" * 100)
    tree = ast.parse((ROOT / "setup.py").read_text())
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "remove_unfinished"]
    names: dict[str, object] = {"Path": Path}
    exec(compile(ast.Module(wanted, []), "setup.py", "exec"), names)
    remove_unfinished = names["remove_unfinished"]
    assert callable(remove_unfinished)
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.c"]
