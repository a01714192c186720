"""The shared connection to a coordination server: its key, and one HTTP/2 connection inside Noise.

Register, map stream and updates all use the connection that is open; a broken one is replaced at the next
request. The server's key is fetched once and again only when a handshake was refused, because a changed key
and a wrong key look the same from outside: the connection just ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshd.base.addr import IPAddress
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import MachinePrivate, MachinePublic
from meshd.base.log import get_logger, kv
from meshd.base.switch import switch
from meshd.core.controladdress import ControlAddress, control_address
from meshd.core.prefs import CONTROL_SYNONYMS
from meshd.io.http.h1client import fetch
from meshd.io.noise import RecordError, connect_noise, not_control, open_stream
from meshd.node.dialplan import DialPlan
from meshd.wire.control import OverTLSPublicKey, decode
from meshd.wire.earlypayload import EarlyPayloadReader

if TYPE_CHECKING:
    from meshd.io.http.h2client import H2Client
    from meshd.io.noise import NoiseStream

PROBE_PATIENCE = 10.0  # s that a connection may be silent when the network changed
KEY_TIMEOUT = 15.0  # s for GET /key
KEY_LIMIT = 64 * 1024  # bytes of its answer
EARLY_TIMEOUT = 10.0  # s until the server has said something after the handshake
PLAIN_AGAIN_AFTER = 120.0  # s; a connection that broke sooner may have been cut because it was plain HTTP
_TEST_GUARD = "TS_PANIC_IF_HIT_MAIN_CONTROL"  # set by test suites, so that no test meets the public server
_REFUSALS = ("control-noise-refused", "control-noise")

log = get_logger(__name__)


class ControlLink:
    """One coordination server. `connection` is what everything else asks for."""

    def __init__(
        self,
        url: str,
        machine_private: Callable[[], MachinePrivate],
        version: int,
        clock: Clock,
        plan: DialPlan | None = None,
    ) -> None:
        """``machine_private`` is asked once, before the first handshake; its MeshdError is that of the connection.
        ``plan`` has addresses to try before the server's name is resolved."""
        self.address: ControlAddress = control_address(url)
        self._plan = plan if plan is not None else DialPlan()
        self._local: IPAddress | None = None
        self._tls_always = switch(os.environ, "TS_FORCE_NOISE_443")
        self._forbidden = switch(os.environ, _TEST_GUARD) and self.address.url in CONTROL_SYNONYMS
        self._machine_private = machine_private
        self._machine: MachinePrivate | None = None
        self._version = version
        self._clock = clock
        self._key: MachinePublic | None = None
        self._client: H2Client | None = None
        self._lock = asyncio.Lock()
        self._dialled_at: float | None = None
        self._ended = False

    async def connection(self) -> H2Client:
        """The open connection, or a new one. Raises MeshdError."""
        if self._forbidden:
            raise MeshdError(
                f"not talking to {self.address.url}: {_TEST_GUARD} is set",
                code="control-url",
                hint="Name the server of the test with --login-server, or unset the variable.",
            )
        async with self._lock:
            if not self._ended and (self._client is None or not self._client.usable):
                self._client = await self._connect()
            if self._ended or self._client is None:
                self.close()
                raise MeshdError("the login at the coordination server has ended meanwhile", code="control-closed")
            return self._client

    def close(self) -> None:
        """Drop the connection; its requests fail."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def end(self) -> None:
        """Drop the connection, and one that is being made; there will be no other."""
        self._ended = True
        self.close()

    def probe(self) -> None:
        """Make sure that the server still answers: a way that is gone, or a NAT that forgot us, tells nobody."""
        if self._client is not None:
            self._client.probe(PROBE_PATIENCE)

    def keep_from(self, addresses: frozenset[IPAddress]) -> None:
        """The host has these addresses now; a connection from another one is dead, though nobody says so."""
        local = self._local
        if self._client is not None and local is not None and not local.is_loopback and local not in addresses:
            log.info("control_connection_dropped", extra=kv(reason="this host's address is gone"))
            self.close()

    async def _connect(self) -> H2Client:
        if self._key is not None:
            return await self._dial(self._key)
        self._key = await self.fetch_key()
        try:
            return await self._dial(self._key)
        except MeshdError:
            self._key = None  # ask again next time: nothing has proven it right
            raise

    async def _dial(self, key: MachinePublic) -> H2Client:
        try:
            return await self._handshake(key)
        except MeshdError as error:
            if error.code not in _REFUSALS:
                raise
            fresh = await self.fetch_key()
            if fresh == key:
                raise
            log.info("control_key_changed", extra=kv(server=self.address.url, key=fresh))
            self._key = fresh
            return await self._handshake(fresh)

    async def _handshake(self, key: MachinePublic) -> H2Client:
        if self._machine is None:
            self._machine = self._machine_private()
        now = self._clock.monotonic()
        recent = self._dialled_at is not None and now - self._dialled_at < PLAIN_AGAIN_AFTER
        stream = await connect_noise(
            self.address,
            self._machine,
            key,
            self._version,
            skip_plain=self._tls_always or (recent and self.address.https),
            planned=self._plan.addresses(self.address.url),
        )
        self._dialled_at, self._local = now, stream.local_address
        return await self._start_http(stream)

    async def _start_http(self, stream: NoiseStream) -> H2Client:
        """HTTP/2 on a fresh Noise connection, once its first bytes showed that the server is content."""
        from meshd.io.http.h2client import H2Client

        reader = EarlyPayloadReader()
        first = _FirstBytes(stream)
        client = H2Client(first, self.address.authority)
        try:
            async with asyncio.timeout(EARLY_TIMEOUT):
                await first.open(reader)
        except TimeoutError:
            client.close()
            raise self._refused("the server says nothing after the handshake") from None
        except (WireError, RecordError) as error:
            client.close()
            raise self._refused(str(error)) from None
        except ConnectionError as error:
            client.close()
            raise MeshdError(
                f"the coordination server {self.address.url} closed the connection after the handshake",
                code="control-noise-refused",
                hint="It may not support this client's protocol version.",
                reason=str(error),
            ) from None
        except BaseException:
            client.close()
            raise
        return client

    def _refused(self, reason: str) -> MeshdError:
        return MeshdError(
            f"the coordination server {self.address.url} broke the protocol: {reason}", code="control-noise"
        )

    async def fetch_key(self) -> MachinePublic:
        """The server's Noise key, by GET /key with the certificate checked. Raises MeshdError."""
        address = self.address
        try:
            async with asyncio.timeout(KEY_TIMEOUT):
                stream = await open_stream(
                    address, address.port, tls=address.https, verify=True, planned=self._plan.addresses(address.url)
                )
                try:
                    headers = [("Host", address.authority), ("User-Agent", "meshd"), ("Connection", "close")]
                    answer = await fetch(stream, "GET", f"/key?v={self._version}", headers, limit=KEY_LIMIT)
                finally:
                    stream.close()
        except TimeoutError:
            raise not_control(address, address.port, "it does not answer GET /key") from None
        except MeshdError as error:
            if error.code == "http":
                raise not_control(address, address.port, error.message) from None
            raise
        if answer.status != 200:
            raise not_control(address, address.port, f"GET /key was answered with HTTP {answer.status}")
        try:
            key = MachinePublic.parse(decode(OverTLSPublicKey, answer.body).public_key)
        except WireError:
            raise not_control(address, address.port, "its answer to GET /key holds no key") from None
        if key.is_zero:
            raise MeshdError(
                f"the coordination server {address.url} is too old: it has no Noise key", code="control-version"
            )
        return key


class _FirstBytes:
    """A Noise stream that holds the early payload back from HTTP/2.

    Our preface goes out at once. What arrives is looked at first: `open` returns when the early payload,
    or the knowledge that there is none, is there.
    """

    def __init__(self, stream: NoiseStream) -> None:
        self._stream = stream
        self._first = b""
        self._ready = asyncio.Event()
        self._failed = False

    async def open(self, reader: EarlyPayloadReader) -> None:
        """Read up to the end of the early payload. Raises WireError, ConnectionError."""
        try:
            while True:
                data = await self._stream.read()
                if not data:
                    raise ConnectionError("closed before the first byte")
                found = reader.feed(data)
                if found is not None:
                    self._first = found[1]
                    return
        except BaseException:
            self._failed = True
            raise
        finally:
            self._ready.set()

    async def read(self) -> bytes:
        await self._ready.wait()
        if self._failed:
            raise ConnectionError("the connection was refused")
        if self._first:
            data, self._first = self._first, b""
            return data
        return await self._stream.read()

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    async def drain(self) -> None:
        await self._stream.drain()

    def close(self) -> None:
        self._stream.close()
