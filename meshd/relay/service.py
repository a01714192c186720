"""A relay on its own: DERP and STUN, and nothing that knows a network."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import uvloop

from meshd.base.addr import is_address
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.base.log import get_logger, kv, log_to_stderr
from meshd.base.standardstreams import say
from meshd.base.version import VERSION
from meshd.io.files import write_atomic
from meshd.io.http.front import FrontConnection, Request, Response, Upgrade
from meshd.io.listener import SniffingListener
from meshd.io.stopsignals import leave, stop_wanted
from meshd.relay.admission import AskUrl
from meshd.relay.certificate import RelayTls, from_files, self_signed
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer, admit_everyone
from meshd.relay.stun import StunServer

log = get_logger(__name__)

MAX_CONNECTIONS = 65536
CLOSE_GRACE_S = 0.5
KEY_NAME = "relay.key"


class RelayOptions(msgspec.Struct, frozen=True):
    """What `mesh-relay` can be told."""

    state_dir: Path
    listen_host: str
    listen_port: int
    hostname: str
    certificate: Path | None = None
    key: Path | None = None
    stun_port: int = 3478
    """0 = any free port, -1 = no STUN."""
    verify_url: str = ""
    verify_fail_open: bool = False
    client_rate_bytes: int = 0


class RelayService:
    """Start it inside a running loop; `close` ends everything."""

    def __init__(self, options: RelayOptions) -> None:
        self._options = options
        self._listener: SniffingListener | None = None
        self._stun: StunServer | None = None
        self.relay: RelayServer | None = None
        self._tls: RelayTls | None = None
        self.pin: str | None = None
        """SHA-256 of the self-signed certificate, to be pinned in a DERP map."""

    @property
    def port(self) -> int:
        assert self._listener is not None
        return self._listener.port

    @property
    def stun_port(self) -> int:
        """The UDP port of STUN, 0 without one."""
        return self._stun.port if self._stun is not None else 0

    async def start(self) -> None:
        """Begin to serve. MeshdError when something is not usable."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        options = self._options
        admit = AskUrl(options.verify_url, fail_open=options.verify_fail_open) if options.verify_url else admit_everyone
        private = stored_key(options.state_dir)
        relay = self.relay = RelayServer(private, admit=admit, client_rate_bytes=options.client_rate_bytes)
        if options.certificate is not None and options.key is not None:
            tls = from_files(options.state_dir, options.certificate, options.key, relay.public)
        else:
            tls = self_signed(options.state_dir, [options.hostname], relay.public)
        self.pin = tls.pin
        self._tls = tls
        tls.watch()
        pages = RelayPages(relay, () if is_address(options.hostname) else (options.hostname,))

        async def handle(request: Request) -> Response | Upgrade:
            answer = await pages.handle(request)
            if answer is not None:
                return answer
            if request.path == "/":
                return Response(200, b"This is a relay for encrypted packets between mesh nodes (DERP).\n")
            return Response(404, b"not found\n")

        self._listener = SniffingListener(
            lambda encrypted, released: FrontConnection(handle, encrypted, released),
            tls=tls.context,
            max_connections=MAX_CONNECTIONS,
        )
        self._listener.listen(options.listen_host, options.listen_port)
        if options.stun_port >= 0:
            self._stun = StunServer()
            await self._stun.start(options.listen_host, options.stun_port)
        log.info(
            "serving",
            extra=kv(version=VERSION, hostname=options.hostname, port=self.port, stun=self.stun_port),
        )

    async def close(self) -> None:
        """Stop serving."""
        if self._listener is not None:
            self._listener.close()
        if self.relay is not None:
            self.relay.close()
        if self._listener is not None:
            await self._listener.close_connections(CLOSE_GRACE_S)
        if self._stun is not None:
            self._stun.close()
        if self._tls is not None:
            self._tls.close()

    def reload(self) -> None:
        """Look whether there is another certificate."""
        if self._tls is not None:
            self._tls.check()


def stored_key(folder: Path) -> NodePrivate:
    """The relay's key in `folder`, made at the first start. MeshdError when the folder cannot be used."""
    path = folder / KEY_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            return NodePrivate.parse(path.read_text("ascii").strip())
        private = NodePrivate.generate()
        write_atomic(path, private.text().encode() + b"\n", 0o600)
    except (OSError, ValueError) as error:
        raise MeshdError(
            f"cannot use the relay key {path}: {error}",
            code="config" if isinstance(error, ValueError) else "storage",
            hint="Restore a copy of the file, or delete it: the relay then has another key.",
        ) from None
    return private


def run(options: RelayOptions, *, verbose: bool) -> None:
    """Serve until SIGTERM or SIGINT. MeshdError when it cannot start."""
    log_to_stderr(verbose=verbose)
    uvloop.run(_serve(options))


async def _serve(options: RelayOptions) -> None:
    stop = stop_wanted()
    service = RelayService(options)
    await service.start()
    assert service.relay is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload)
    pin = f", CertName sha256-raw:{service.pin}" if service.pin else ""
    say(f"relay {options.hostname} serves on port {service.port}, STUN on {service.stun_port or 'no'} port{pin}\n")
    await stop.wait()
    log.info("stopping", extra=kv(**service.relay.counters.as_dict()))
    await service.close()
    leave(0)
