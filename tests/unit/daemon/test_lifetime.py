"""How a daemon begins and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.daemon.assembly import debug_flags
from meshd.daemon.parent import parent_pipe
from meshd.daemon.statepath import DEFAULT_STATE, default_state
from tests.unit.daemon.process import Daemon, refused, running


def test_daemon_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """DM-05: TS_PARENT_DEATH_FD, in good order and with a status that says so."""
    reader, writer = os.pipe()
    daemon = Daemon(tmp_path, env={"TS_PARENT_DEATH_FD": str(reader)})
    try:
        daemon.start(pass_fds=[reader])
        os.write(writer, b"x")
        assert daemon.client.status(peers=False)["BackendState"] == "NeedsLogin"
        os.close(writer)
        assert daemon.process.wait(20) == 1
        assert "parent_gone" in daemon.output
        assert "stopping" in daemon.output
        assert not Path(daemon.socket).exists()
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            daemon.process.kill()
            daemon.process.wait()


def test_parent_pipe_is_a_number_above_the_standard_ones(tmp_path: Path) -> None:
    """DM-05: TS_PARENT_DEATH_FD."""
    assert parent_pipe({}) is None
    assert parent_pipe({"TS_PARENT_DEATH_FD": "2"}) is None
    assert parent_pipe({"TS_PARENT_DEATH_FD": "3"}) == 3
    with pytest.raises(MeshdError, match='invalid value "x"'):
        parent_pipe({"TS_PARENT_DEATH_FD": "x"})
    done = refused(tmp_path, env={"TS_PARENT_DEATH_FD": "99"})
    assert done.returncode == 2
    assert "TS_PARENT_DEATH_FD=99 is no open pipe" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_signal_ends_it_well(tmp_path: Path, number: signal.Signals) -> None:
    """DM-03, DM-04: status 0, the socket gone; SIGPIPE is ignored."""
    with running(tmp_path) as daemon:
        daemon.process.send_signal(signal.SIGPIPE)
        assert daemon.client.status(peers=False)["BackendState"] == "NeedsLogin"
        daemon.process.send_signal(number)
        assert daemon.process.wait(20) == 0
        assert "stopping" in daemon.output
        assert "Traceback" not in daemon.output
        assert not Path(daemon.socket).exists()


def test_daemon_answers_later_when_the_start_is_delayed_and_ends_meanwhile(tmp_path: Path) -> None:
    """DM-08, TS_DEBUG_BACKEND_DELAY_SEC: it listens before there is a node; a signal does not wait."""
    daemon = Daemon(tmp_path, env={"TS_DEBUG_BACKEND_DELAY_SEC": "1000"})
    try:
        daemon.start_without_waiting()
        daemon.wait(lambda: "start_delayed seconds=1000" in daemon.output, "the delay")
        assert Path(daemon.socket).exists()
        assert daemon.stop() == 0
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
    done = refused(tmp_path, env={"TS_DEBUG_BACKEND_DELAY_SEC": "soon"})
    assert 'invalid value "soon" for TS_DEBUG_BACKEND_DELAY_SEC' in done.stderr


def test_daemon_of_a_test_does_not_contact_the_main_server(tmp_path: Path) -> None:
    """TS_PANIC_IF_HIT_MAIN_CONTROL: it says so and goes on; another server is no matter."""
    with running(tmp_path, env={"TS_PANIC_IF_HIT_MAIN_CONTROL": "1"}) as daemon:
        assert daemon.client.request("POST", "/localapi/v0/login-interactive").status == 204
        daemon.wait(lambda: _refusals(daemon), "the refusal in the health")
        (text,) = _refusals(daemon)
        assert "TS_PANIC_IF_HIT_MAIN_CONTROL is set" in text
        body = b'{"UpdatePrefs":{"ControlURL":"http://127.0.0.1:9"}}'
        assert daemon.client.request("POST", "/localapi/v0/start", body).status == 204
        assert daemon.stop() == 0


def _refusals(daemon: Daemon) -> list[str]:
    return [text for text in daemon.client.status(peers=False)["Health"] if "not talking to" in text]


def test_words_for_the_server_come_from_the_environment() -> None:
    """TS_DEBUG_CONTROL_FLAGS."""
    assert debug_flags({}) == debug_flags({"TS_DEBUG_CONTROL_FLAGS": ""}) == ()
    assert debug_flags({"TS_DEBUG_CONTROL_FLAGS": "warn-a,,b"}) == ("warn-a", "b")


def test_default_state_of_root_and_of_whoever_may_write_there() -> None:
    """DM-07, file:state file."""
    home = {"HOME": "/home/u"}
    assert default_state(home, 0, lambda _: False) == DEFAULT_STATE == "/var/lib/meshd/meshd.state"
    assert default_state(home, 1000, lambda path: path == "/var/lib") == DEFAULT_STATE


def test_default_state_of_an_ordinary_user_is_among_his_data() -> None:
    """DM-07."""
    own = "/home/u/.local/share/meshd/meshd.state"
    assert default_state({"HOME": "/home/u"}, 1000, lambda _: False) == own
    assert default_state({"HOME": "/h", "XDG_DATA_HOME": "/d"}, 1000, lambda _: False) == "/d/meshd/meshd.state"
    assert default_state({}, 1000, lambda _: False) == DEFAULT_STATE


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["debug", "--derp"], "does not take non-flag arguments: debug --derp\nFor that there is: mesh debug"),
        (["be-child", "ssh"], "has no SSH server"),
        (["serve-taildrive"], "shares no directories"),
        (["install-system-daemon"], "meshd.service"),
        (["--bird-socket=/run/bird.ctl"], "--bird-socket is not supported"),
        (["--hardware-attestation"], "--hardware-attestation is not supported"),
        (["--tun=tap:foo"], "TAP"),
        (["--debug=nonsense"], "--debug=nonsense: expected a loopback address and port"),
        (["--socks5-server=nonsense"], "--socks5-server 'nonsense' is not of the form ADDRESS:PORT"),
        (["--outbound-http-proxy-listen=[::1:80"], "--outbound-http-proxy-listen '[::1:80' is not of the form"),
    ],
)
def test_daemon_names_what_it_cannot_do_and_what_there_is_instead(tmp_path: Path, flags: list[str], text: str) -> None:
    """flag:--bird-socket, flag:--hardware-attestation, flag:subcommands, flag:positional arguments, flag:--tun tap:"""
    done = refused(tmp_path, *flags)
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_daemon_that_gives_up_after_its_start_says_only_why(tmp_path: Path) -> None:
    """Its parts are freed at the end of the interpreter, when there are no modules any more."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = refused(tmp_path, f"--socks5-server=127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert "cannot listen on" in done.stderr
    assert "excepthook" not in done.stderr
