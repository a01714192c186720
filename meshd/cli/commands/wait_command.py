"""`mesh wait`."""

from __future__ import annotations

import errno
import socket
import time

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import AccessDenied, CliError
from meshd.cli.flags import DURATION, Flag, Parsed, format_duration
from meshd.cli.output import printable
from meshd.cli.progress import progress

_INITIAL_STATE = 2
_NO_NETMAP = 1 << 13
_RUNNING = (6, "Running")
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 2.0


class _Patience:
    """What is left of --timeout, and the pauses between tries."""

    def __init__(self, client: LocalClient, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout if timeout > 0 else None
        self._pause = _FIRST_PAUSE_S
        client.deadline = self._deadline

    def left(self, what: str) -> float | None:
        """Seconds left, None for any number. CliError when there are none."""
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.over(what)
        return left

    def over(self, what: str) -> CliError:
        """How the command ends when the time is over."""
        return CliError(f"timeout after {format_duration(self._timeout)} waiting for {what}")

    def pause(self, what: str) -> None:
        """Sleep, longer from time to time."""
        left = self.left(what)
        time.sleep(self._pause if left is None else min(self._pause, left))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_S)


def _run(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        words = " ".join('"' + printable(word) + '"' for word in flags.args)
        raise CliError(f"unexpected arguments: [{words}]")
    patience = _Patience(client, flags.seconds("timeout"))
    with progress("waiting for meshd"):
        _until_answering(client, patience)
    with progress("waiting until meshd is running"):
        status = _until_running(client, patience)
    if not status.get("TUN"):
        return  # no interface to wait for
    address = str(status["TailscaleIPs"][0])
    with progress(f"waiting until {address} can be used"):
        while not _can_bind(address):
            patience.pause(f"an interface with {address}")


def _until_answering(client: LocalClient, patience: _Patience) -> None:
    while True:
        try:
            client.status(peers=False)
            return
        except TimeoutError:
            raise patience.over("meshd to answer") from None
        except AccessDenied:
            raise
        except CliError:  # one that is starting or ending
            patience.pause("meshd to answer")


def _until_running(client: LocalClient, patience: _Patience) -> JSON:
    what = "meshd to enter a Running state"
    try:
        return _running(client, patience, what)
    except TimeoutError:
        raise patience.over(what) from None


def _running(client: LocalClient, patience: _Patience, what: str) -> JSON:
    watcher = client.watch(_INITIAL_STATE | _NO_NETMAP)
    try:
        while True:
            news = watcher.next(patience.left(what))
            if news is None:
                raise CliError('lost the connection to meshd while waiting for it; see "mesh status"')
            if news.get("State") in _RUNNING:
                status = client.status(peers=False)
                if status.get("TailscaleIPs"):
                    return status
    finally:
        watcher.close()


def _can_bind(address: str) -> bool:
    """Whether a service could listen on the address now: an IPv6 one is not usable as soon as it is there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            raise CliError(f"cannot use {address}: {error.strerror}") from None
    return True


COMMAND = Command(
    "wait",
    usage="mesh wait",
    short="Wait until the mesh interface and its addresses are ready",
    long="""\
Returns when meshd answers, is running, and a program can listen on the first mesh address of
this machine; so that a service can be started after it:

  mesh wait && exec my-service --listen="$(mesh ip -1)"

Without an interface (--tun=userspace-networking) it returns as soon as meshd is running.""",
    flags=[Flag("timeout", DURATION, 0.0, "how long to wait before giving up, 0s for ever")],
    run=_run,
)
