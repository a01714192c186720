"""The actions behind ``debug``: each does one thing that a person asks for while looking for a fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.controlknobs import control_knobs
from meshd.io.tcpbreak import break_connections
from meshd.node.backend import Backend
from meshd.node.magicsock import MagicSock

log = get_logger(__name__)
JSON = dict[str, Any]


class _Problem(msgspec.Struct):
    primary_action: dict[str, Any] | None = msgspec.field(default=None, name="PrimaryAction")


class _Problems(msgspec.Struct):
    warnings: dict[str, _Problem] | None = msgspec.field(default=None, name="Warnings")


class _Told(msgspec.Struct):
    """What the bus itself reads of a notification."""

    health: _Problems | None = msgspec.field(default=None, name="Health")
    browse_to_url: str | None = msgspec.field(default=None, name="BrowseToURL")


class DebugActions:
    """``run`` by name."""

    def __init__(
        self, backend: Backend, magicsock: MagicSock, netmap: Callable[[], Awaitable[JSON | None]], state_directory: str
    ) -> None:
        self._backend = backend
        self._magicsock = magicsock
        self._netmap = netmap
        self._actions: dict[str, Callable[[bytes], Any]] = {
            "rebind": lambda _: magicsock.rebind(),
            "restun": lambda _: magicsock.restun(),
            "break-derp-conns": lambda _: magicsock.break_relays(),
            "break-tcp-conns": self._break_tcp,
            "force-netmap-update": lambda _: backend.apply(),
            "derp-set-homeless": lambda _: magicsock.set_homeless(True),
            "derp-unset-homeless": lambda _: magicsock.set_homeless(False),
            "pick-new-derp": lambda _: magicsock.move_home(),
            "force-prefer-derp": self._prefer_relay,
            "notify": self._notify,
            "statedir": lambda _: state_directory,
            "control-knobs": lambda _: control_knobs(backend.netmap),
            "peer-disco-keys": self._disco_keys,
            "peer-relay-servers": lambda _: [],
            "rotate-disco-key": self._rotate_disco,
            "clear-netmap-cache": lambda _: backend.clear_netmap_cache(),
            "current-netmap": self._current_netmap,
        }

    def run(self, action: str, body: bytes) -> Any:
        """None, or what the action answers, perhaps to be awaited. MeshdError "not_found" for an unknown name."""
        chosen = self._actions.get(action)
        if chosen is None:
            raise MeshdError(f"this daemon has no debug action {action!r}", code="not_found")
        return chosen(body)

    def _break_tcp(self, _: bytes) -> None:
        try:
            count = break_connections()
        except OSError:
            raise MeshdError("TCP connection breaking not available on this platform", code="unsupported") from None
        log.warning("tcp_connections_broken", extra=kv(count=count))

    def _rotate_disco(self, _: bytes) -> None:
        self._magicsock.rotate_disco()
        self._backend.disco_key_changed()

    def _notify(self, body: bytes) -> None:
        try:
            notify = msgspec.json.decode(body, type=dict[str, Any])
            msgspec.convert(notify, _Told)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MeshdError(str(error), code="invalid") from None
        self._backend.bus.send(notify)

    def _prefer_relay(self, body: bytes) -> None:
        try:
            region = msgspec.json.decode(body, type=int)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MeshdError(str(error), code="invalid") from None
        if region and region not in self._magicsock.relays.regions:
            raise MeshdError(f"there is no relay region {region}", code="invalid")
        self._magicsock.prefer_relay(region)

    def _disco_keys(self, _: bytes) -> JSON:
        netmap = self._backend.netmap
        peers = netmap.sorted_peers() if netmap is not None else []
        return {node.key.text(): node.disco_key.text() for node in peers if node.disco_key is not None}

    async def _current_netmap(self, _: bytes) -> JSON:
        netmap = await self._netmap()
        if netmap is None:
            raise MeshdError("no netmap: this node is not logged in", code="unavailable")
        return netmap
