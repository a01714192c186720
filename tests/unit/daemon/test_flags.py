"""The daemon's command line."""

from __future__ import annotations

import pytest

from meshd.base.errors import MeshdError
from meshd.daemon.flags import DEFAULT_STATE, HelpWanted, parse_flags


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
