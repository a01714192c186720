"""ts2021 from the client's side: find a way to the server, upgrade, shake hands.

The server is tried in plain HTTP first, because Noise protects the content and port 80 passes where TLS is
meddled with; TLS starts 500 ms later, or at once when plain HTTP failed. Whoever finishes the Noise
handshake first wins.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import MachinePrivate, MachinePublic
from meshd.base.log import get_logger, kv
from meshd.core.controladdress import ControlAddress
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
_STAGES = ("control-noise", "control-noise-refused", "control-http", "tls", "control-unreachable")


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
        try:
            raise min(failures, key=lambda error: _rank(error, address)) from None
        finally:
            failures.clear()  # they know this frame


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
