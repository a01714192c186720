"""`mesh debug ts2021`: every step towards the coordination server, one line each."""

from __future__ import annotations

import binascii
import socket
import time
from urllib.parse import urlsplit

from meshd.base.version import CAPABILITY_VERSION
from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, INT, STRING, Flag, Parsed
from meshd.cli.output import out, printable
from meshd.cli.prefsflags import DEFAULT_CONTROL_URL
from meshd.cli.state import no_arguments

_TIMEOUT_S = 10.0
_MAX_HEADER = 64 * 1024
_MAX_BODY = 1 << 20


class _Place:
    """Where a server is."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else "https://" + url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise CliError(f'"{printable(url)}" is not the URL of a server')
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = port or (443 if self.tls else 80)
        default = 443 if self.tls else 80
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = name if self.port == default else f"{name}:{self.port}"


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    place = _Place(flags.text("host") or _own_server(client))
    version = flags.number("version")
    if not 0 < version < 1 << 16:
        raise CliError("--version must be between 1 and 65535")
    verbose = flags.on("verbose")
    try:
        key = _fetch_key(place, version, verbose=verbose)
        _shake_hands(place, key, version)
    except (OSError, ValueError) as error:
        raise CliError(f"failed: {getattr(error, 'strerror', None) or error}") from None


def _own_server(client: LocalClient) -> str:
    """The server that this node uses."""
    return str(client.prefs().get("ControlURL") or DEFAULT_CONTROL_URL)


def _say(text: str) -> None:
    now = time.time()
    out(f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1e6):06d} {printable(text)}")


def _connect(place: _Place) -> socket.socket:
    _say(f"connecting to {place.host} port {place.port} ...")
    sock = socket.create_connection((place.host, place.port), _TIMEOUT_S)
    if place.tls:
        import ssl

        try:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=place.host)
        except BaseException:
            sock.close()
            raise
    _say(f"connected from {sock.getsockname()[0]} to {sock.getpeername()[0]}")
    return sock


def _fetch_key(place: _Place, version: int, *, verbose: bool) -> str:
    from meshd.wire.control import OverTLSPublicKey, decode

    _say("fetching the key of the server ...")
    with _connect(place) as sock:
        head = f"GET /key?v={version} HTTP/1.1\r\nHost: {place.authority}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        status, rest = _read_head(sock)
        while len(rest) < _MAX_BODY and (part := sock.recv(_MAX_HEADER)):
            rest += part
    if status != 200:
        raise CliError(f"the server answered {status} when asked for its key")
    start, end = rest.find(b"{"), rest.rfind(b"}")  # the framing of chunks is of no interest here
    key = decode(OverTLSPublicKey, rest[start : end + 1]).public_key
    if verbose:
        _say(f"its key is {key}")
    return str(key)


def _read_head(sock: socket.socket) -> tuple[int, bytes]:
    """The status of an HTTP answer, and what came after the header."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(4096)
        if not part or len(data) > _MAX_HEADER:
            raise CliError("the server does not answer in HTTP")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        raise CliError("the server does not answer in HTTP")
    return int(words[1]), rest


def _shake_hands(place: _Place, key: str, version: int) -> None:
    from meshd.base.keys import MachinePrivate, MachinePublic
    from meshd.wire.noise import RESPONSE_SIZE, Initiator

    initiator = Initiator(MachinePrivate.generate(), MachinePublic.parse(key), version)
    _say("handshake ...")
    with _connect(place) as sock:
        message = binascii.b2a_base64(initiator.message(), newline=False).decode()
        sock.sendall(
            (
                f"POST /ts2021 HTTP/1.1\r\nHost: {place.authority}\r\nConnection: upgrade\r\nContent-Length: 0\r\n"
                f"Upgrade: tailscale-control-protocol\r\nX-Tailscale-Handshake: {message}\r\n\r\n"
            ).encode()
        )
        status, reply = _read_head(sock)
        if status != 101:
            raise CliError(f"the server answered {status} to the handshake")
        while len(reply) < RESPONSE_SIZE:
            part = sock.recv(RESPONSE_SIZE - len(reply))
            if not part:
                raise CliError("the server ended the connection during the handshake")
            reply += part
        initiator.finish(reply[:RESPONSE_SIZE])
    _say("handshake done: the server has the key that it gave")


COMMAND = Command(
    "ts2021",
    usage="mesh debug ts2021",
    short="Try to talk to the coordination server",
    long="Fetches the key of the server and does the handshake of the protocol, with a key made for this try.",
    flags=[
        Flag("host", STRING, "", "server to talk to, or its URL; that of this node when left out"),
        Flag("verbose", BOOL, False, "say more"),
        Flag("version", INT, CAPABILITY_VERSION, "version of the protocol"),
    ],
    run=_run,
)
