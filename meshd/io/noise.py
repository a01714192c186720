"""ts2021 from the client's side: find a way to the server, upgrade, shake hands.

The server is tried in plain HTTP first, because Noise protects the content and port 80 passes where TLS is
meddled with; TLS starts 500 ms later, or at once when plain HTTP failed. Whoever finishes the Noise
handshake first wins.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import MachinePrivate, MachinePublic
from meshd.base.log import get_logger, kv
from meshd.io.dial import PlannedAddress, dial_tcp, first_success, unreachable
from meshd.io.http.h1client import Answer, upgrade
from meshd.io.proxy import dial_through, proxy_for
from meshd.io.streams import SocketStream
from meshd.wire.noise import RESPONSE_SIZE, Initiator, StreamCipher

log = get_logger(__name__)

UPGRADE_PATH = "/ts2021"
PROTOCOL = "tailscale-control-protocol"
PLAIN_HEAD_START = 0.5  # s
DIAL_TIMEOUT = 10.0  # s for the whole of it
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[!-~]+)?")  # a name or an address
_STAGES = ("control-noise", "control-noise-refused", "control-http", "tls", "control-unreachable")


class ControlAddress(msgspec.Struct, frozen=True):
    """Where a control URL leads. ``plain_port`` and ``tls_port`` are None where that way is not to be tried."""

    https: bool
    host: str
    port: int
    plain_port: int | None
    tls_port: int | None

    @property
    def authority(self) -> str:
        """Value of Host, with the port when the URL has an unusual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.https else 'http'}://{self.authority}"


def control_address(url: str) -> ControlAddress:
    """Ports to dial for a control URL. Raises MeshdError for something that is no http(s) URL."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise _bad_url(url) from None
    host = _ascii_host(parts.hostname or "")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise _bad_url(url)
    if parts.path not in ("", "/") or parts.username is not None:
        raise _bad_url(url)
    if parts.scheme == "https":
        return ControlAddress(True, host, port or 443, 80, port or 443)
    tls_port = None if _is_private(host) else 443
    return ControlAddress(False, host, port or 80, port or 80, tls_port)


def _ascii_host(host: str) -> str:
    """The host as DNS, TLS and HTTP want it; empty when it cannot be one."""
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return host if _HOST.fullmatch(host) else ""


def _is_private(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = parse_ip(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback


class RecordError(ConnectionError):
    """What arrived is not from the server that shook hands with us."""


class NoiseStream:
    """The inside of a ts2021 connection as a `ByteStream`."""

    def __init__(self, stream: SocketStream, cipher: StreamCipher) -> None:
        self._stream = stream
        self._cipher = cipher

    @property
    def local_address(self) -> IPAddress | None:
        """Our end of the connection, None when it is not known."""
        transport = self._stream.transport
        name = transport.get_extra_info("sockname") if transport is not None else None
        if not isinstance(name, tuple):
            return None
        try:
            return parse_ip(str(name[0]).partition("%")[0])
        except ValueError:
            return None

    async def read(self) -> bytes:
        """Decrypted bytes; ``b""`` at the end. Raises ConnectionError, RecordError if a record does not open."""
        while True:
            data = await self._stream.read()
            if not data:
                return b""
            try:
                plain = self._cipher.open_stream(data)
            except WireError as error:
                self.close()
                raise RecordError(f"Noise: {error}") from None
            if plain:
                return plain

    def write(self, data: bytes) -> None:
        self._stream.write(self._cipher.seal_stream(data))

    async def drain(self) -> None:
        await self._stream.drain()

    def close(self) -> None:
        self._stream.close()


async def connect_noise(
    address: ControlAddress,
    machine_private: MachinePrivate,
    control_public: MachinePublic,
    version: int,
    *,
    skip_plain: bool = False,
    planned: Sequence[PlannedAddress] = (),
) -> NoiseStream:
    """A connection whose other end has proven to hold the private half of ``control_public``.

    ``skip_plain`` goes straight to TLS where there is TLS; ``planned`` are addresses to try before DNS.
    Raises MeshdError; code ``control-noise-refused`` means that the server closed the connection instead of
    answering (wrong key or unsupported version).
    """
    ways = []
    if address.plain_port is not None and not (skip_plain and address.tls_port is not None):
        ways.append((address.plain_port, False))
    if address.tls_port is not None:
        ways.append((address.tls_port, True))
    failures: list[MeshdError] = []

    async def attempt(port: int, tls: bool) -> NoiseStream:
        try:
            stream = await _attempt(address, port, tls, planned, machine_private, control_public, version)
        except MeshdError as error:
            log.debug("control_dial", extra=kv(host=address.host, port=port, tls=tls, reason=error.message))
            failures.append(error)
            raise
        log.debug("control_dial", extra=kv(host=address.host, port=port, tls=tls, reason="connected"))
        return stream

    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            return await first_success([attempt(port, tls) for port, tls in ways], PLAIN_HEAD_START)
    except TimeoutError:
        raise unreachable(address.host, address.port, TimeoutError()) from None
    except MeshdError:
        raise min(failures, key=lambda error: _rank(error, address)) from None


def _rank(error: MeshdError, address: ControlAddress) -> tuple[int, bool]:
    """The failure that got furthest says most; among equals the one about the URL's own port."""
    stage = _STAGES.index(error.code) if error.code in _STAGES else len(_STAGES)
    return stage, error.facts.get("port") != address.port


async def _attempt(
    address: ControlAddress,
    port: int,
    tls: bool,
    planned: Sequence[PlannedAddress],
    machine_private: MachinePrivate,
    control_public: MachinePublic,
    version: int,
) -> NoiseStream:
    stream = await open_stream(address, port, tls=tls, verify=False, planned=planned)
    try:
        initiator = Initiator(machine_private, control_public, version)
        answer = await _ask(stream, address, port, initiator.message())
        reply = answer.rest
        while len(reply) < RESPONSE_SIZE:
            data = await stream.read()
            if not data:
                raise _refused(address)
            reply += data
        transport = initiator.finish(reply[:RESPONSE_SIZE])
        stream.unread(reply[RESPONSE_SIZE:])
        return NoiseStream(stream, StreamCipher(transport))
    except WireError as error:
        stream.close()
        raise MeshdError(
            f"the Noise handshake with {address.url} failed: {error}",
            code="control-noise",
            hint="Something that is not this coordination server answered, or it changed its key.",
            port=port,
        ) from None
    except ConnectionError:
        stream.close()
        raise _refused(address) from None
    except BaseException:
        stream.close()
        raise


async def _ask(stream: SocketStream, address: ControlAddress, port: int, initiation: bytes) -> Answer:
    headers = [
        ("Host", address.authority),
        ("User-Agent", "meshd"),
        ("Connection", "upgrade"),
        ("Upgrade", PROTOCOL),
        ("X-Tailscale-Handshake", b64encode(initiation).decode()),
        ("Content-Length", "0"),
    ]
    try:
        answer = await upgrade(stream, "POST", UPGRADE_PATH, headers)
    except MeshdError as error:
        raise not_control(address, port, error.message) from None
    if answer.status != 101:
        raise not_control(address, port, f"it answered the upgrade with HTTP {answer.status}")
    if answer.headers.get("upgrade") != PROTOCOL:
        raise not_control(address, port, "it switched to another protocol")
    return answer


async def open_stream(
    address: ControlAddress, port: int, *, tls: bool, verify: bool, planned: Sequence[PlannedAddress] = ()
) -> SocketStream:
    """TCP to the server, through a proxy where the environment says so, with TLS on top if ``tls``."""
    proxy = proxy_for("https" if tls else "http", address.host, port)
    if proxy is None:
        stream = await dial_tcp(address.host, port, planned)
    else:
        stream = await dial_through(proxy, address.host, port)
    if not tls:
        return stream
    import ssl

    from meshd.io.tls import client_context

    assert stream.transport is not None
    loop = asyncio.get_running_loop()
    try:
        stream.transport = await loop.start_tls(
            stream.transport, stream, client_context(verify=verify), server_hostname=address.host
        )
    except ssl.SSLCertVerificationError as error:
        stream.close()
        raise MeshdError(
            f"the TLS certificate of {address.host}:{port} is not valid: {error.verify_message}",
            code="tls",
            hint="The server must have a certificate for its name from an authority that this system trusts.",
            port=port,
        ) from None
    except (OSError, ssl.SSLError) as error:
        stream.close()
        raise MeshdError(
            f"no TLS connection to {address.host}:{port}: {getattr(error, 'reason', None) or error}",
            code="tls",
            port=port,
        ) from None
    except BaseException:
        stream.close()
        raise
    return stream


def not_control(address: ControlAddress, port: int, reason: str) -> MeshdError:
    """Something answered, and it does not behave as a coordination server."""
    return MeshdError(
        f"{address.host}:{port} is not a coordination server: {reason}",
        code="control-http",
        hint="Check the login server's URL; a proxy in front of it must pass the Upgrade header on POST /ts2021.",
        port=port,
    )


def _refused(address: ControlAddress) -> MeshdError:
    return MeshdError(
        f"the coordination server {address.url} refused the handshake without giving a reason",
        code="control-noise-refused",
        hint="Its key may have changed, or it does not support this client's protocol version.",
    )


def _bad_url(url: str) -> MeshdError:
    return MeshdError(
        f"{url[:200]!r} is not the URL of a coordination server",
        code="control-url",
        hint="Write it as https://host or http://host:port.",
    )
