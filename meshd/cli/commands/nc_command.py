"""`mesh nc`."""

from __future__ import annotations

import os
import socket
import sys
from threading import Thread

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.completion import complete_node
from meshd.cli.errors import AccessDenied, ApiError, CliError, LeftToUs
from meshd.cli.flags import Parsed
from meshd.cli.output import printable
from meshd.cli.state import require_running

_PIECE = 64 * 1024


def _run(client: LocalClient, flags: Parsed) -> None:
    require_running(client.status(peers=False))
    if len(flags.args) != 2:
        raise CliError("usage: mesh nc <hostname-or-IP> <port>")
    host, port = flags.args
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise CliError(f'invalid port number "{printable(port)}"')
    if not host or not host.isascii() or not host.isprintable():
        raise CliError(f'invalid host name "{printable(host)}"')
    fields = {"Dial-Host": host, "Dial-Port": str(int(port)), "Dial-Network": "tcp"}
    try:
        sock, early = client.upgrade("dial", "ts-dial", fields)
    except AccessDenied:
        raise
    except ApiError as error:
        raise CliError(f'Dial("{host}", {int(port)}): {error.message}') from None
    except LeftToUs as left:
        sock, early = _connect(left.address, f'Dial("{host}", {int(port)})'), b""
    with sock:
        _join(sock, early)


def _connect(address: str, what: str) -> socket.socket:
    ip, _, port = address.rpartition(":")
    try:
        return socket.create_connection((ip.strip("[]"), int(port)))
    except (OSError, ValueError) as error:
        raise CliError(f"{what}: {getattr(error, 'strerror', None) or error}") from None


def _join(sock: socket.socket, early: bytes) -> None:
    """Carry bytes both ways until the far end has closed; our end of input only closes its half.

    Each way has a thread: the far end may stop reading until what it has written is taken.
    """
    output, source = sys.stdout.fileno(), sys.stdin.fileno()
    lost: list[OSError] = []

    def upload() -> None:
        try:
            while data := os.read(source, _PIECE):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            lost.append(error)

    _write(output, early)
    Thread(target=upload, daemon=True).start()
    while True:
        try:
            data = sock.recv(_PIECE)
        except ConnectionError as error:
            raise CliError(f"connection lost: {error.strerror}") from None
        if not data:
            break
        _write(output, data)
    if lost:
        raise CliError(f"connection lost: {lost[0].strerror}")


def _write(output: int, data: bytes) -> None:
    while data:
        data = data[os.write(output, data) :]


COMMAND = Command(
    "nc",
    usage="mesh nc <hostname-or-IP> <port>",
    short="Connect to a port of a node and join it with stdin and stdout",
    run=_run,
    complete=complete_node,
)
