"""The daemon's command line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.base.socketpath import default_socket
from meshd.base.version import long_version
from meshd.cli import client
from meshd.daemon.flags import HelpWanted, parse_flags, tunnel_mtu
from meshd.daemon.main import main
from meshd.daemon.statepath import DEFAULT_STATE
from meshd.feature.localapi.socketfile import open_socket


def test_flags_none_gives_the_defaults() -> None:
    """Features of 4.1."""
    flags = parse_flags([], {})
    assert (flags.tun, flags.port, flags.state, flags.statedir) == ("mesh0", 0, DEFAULT_STATE, "/var/lib/meshd")


@pytest.mark.parametrize("form", [["-tun", "t1"], ["--tun", "t1"], ["-tun=t1"], ["--tun=t1"]])
def test_flags_every_go_form_is_understood(form: list[str]) -> None:
    assert parse_flags(form, {}).tun == "t1"


def test_flags_state_directory_follows_from_the_state_and_back() -> None:
    assert parse_flags(["--state=/x/y.state"], {}).statedir == "/x"
    assert parse_flags(["--statedir=/x"], {}).state == "/x/meshd.state"
    assert parse_flags(["--state=mem:"], {}).statedir == ""


def test_flags_port_comes_from_the_environment_unless_given() -> None:
    assert parse_flags([], {"PORT": "41641"}).port == 41641
    assert parse_flags(["--port=7"], {"PORT": "41641"}).port == 7


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["extra"], "does not take non-flag arguments: extra"),
        (["--nonsense"], "flag provided but not defined: -nonsense"),
        (["--port=65536"], "expected a port from 0 to 65535"),
        (["--port"], "flag needs an argument: -port"),
        (["--cleanup=perhaps"], 'invalid boolean value "perhaps"'),
        (["--verbose=x"], "not a number"),
        (["--socket="], "--socket is required"),
    ],
)
def test_flags_bad_argument_is_named(arguments: list[str], text: str) -> None:
    with pytest.raises(MeshdError) as caught:
        parse_flags(arguments, {})
    assert caught.value.code == "usage"
    assert text in caught.value.message


def test_flags_help_lists_every_flag() -> None:
    with pytest.raises(HelpWanted) as caught:
        parse_flags(["--help"], {})
    for name in ("--tun", "--state", "--statedir", "--socket", "--port", "--cleanup", "--socks5-server", "--debug"):
        assert name in str(caught.value)


def test_tunnel_mtu_is_the_default_or_what_the_environment_says() -> None:
    """RT-12, RT-16: TS_DEBUG_MTU."""
    assert tunnel_mtu({}) == 1280
    assert tunnel_mtu({"TS_DEBUG_MTU": ""}) == 1280
    assert tunnel_mtu({"TS_DEBUG_MTU": "1420"}) == 1420
    for bad in ("1279", "65409", "-1", "x", "1e3"):
        with pytest.raises(MeshdError, match="expected 1280 to 65408"):
            tunnel_mtu({"TS_DEBUG_MTU": bad})


def test_flags_socket_has_one_default_for_daemon_and_commands(tmp_path: Path) -> None:
    """LA-01: below /run, in the working directory of a machine without one, or where --socket says."""
    assert parse_flags([], {}).socket == client.DEFAULT_SOCKET == "/run/meshd/meshd.sock"
    assert default_socket(str(tmp_path)) == f"{tmp_path}/meshd/meshd.sock"
    assert default_socket(str(tmp_path / "none")) == "meshd.sock"
    assert parse_flags(["--socket=/x/s"], {}).socket == "/x/s"
    made = tmp_path / "meshd" / "meshd.sock"
    open_socket(str(made)).close()
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(made.stat().st_mode) == 0o666


def test_flags_verbosity_comes_from_the_environment_unless_given() -> None:
    assert parse_flags([], {"TS_LOG_VERBOSITY": "1"}).verbose == 1
    assert parse_flags(["--verbose=0"], {"TS_LOG_VERBOSITY": "1"}).verbose == 0
    with pytest.raises(MeshdError, match='invalid value "x" for the environment variable TS_LOG_VERBOSITY'):
        parse_flags([], {"TS_LOG_VERBOSITY": "x"})


@pytest.mark.parametrize(("variable", "program"), [("1", "meshd"), ("0", "/usr/bin/mesh"), ("", "/opt/bin/tailscale")])
def test_daemon_is_the_command_line_when_the_environment_asks(
    capsys: pytest.CaptureFixture[str], variable: str, program: str
) -> None:
    """CL-09, flag:argv[0]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TS_BE_CLI", variable)
        patch.setattr("sys.argv", [program, "version"])
        assert main() == 0
    assert long_version().split("-")[0] in capsys.readouterr().out


def test_daemon_refuses_a_switch_that_is_neither_true_nor_false(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TS_BE_CLI", "maybe")
        patch.setattr("sys.argv", ["meshd", "--version"])
        assert main() == 2
    assert 'invalid value "maybe" for the environment variable TS_BE_CLI' in capsys.readouterr().err


def test_daemon_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    """flag:--version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TS_BE_CLI", raising=False)
        patch.setattr("sys.argv", ["meshd", "--version"])
        assert main() == 0
    assert capsys.readouterr().out.strip() == long_version()


def test_flags_that_ask_for_nothing_are_taken() -> None:
    """flag:--no-logs-no-support: logs are never sent; flag:--hardware-attestation=false: there are no such keys."""
    assert parse_flags(["--no-logs-no-support"], {}).no_logs_no_support
    assert not parse_flags(["--hardware-attestation=false"], {}).hardware_attestation
