"""The actions behind ``debug``: each does one thing that a person asks for while looking for a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.core.controlknobs import control_knobs
from meshd.node.backend import Backend
from meshd.node.magicsock import MagicSock

JSON = dict[str, Any]


class DebugActions:
    """``run`` by name."""

    def __init__(self, backend: Backend, magicsock: MagicSock, netmap: Callable[[], JSON | None]) -> None:
        self._backend = backend
        self._netmap = netmap
        self._actions: dict[str, Callable[[bytes], Any]] = {
            "rebind": lambda _: magicsock.rebind(),
            "restun": lambda _: magicsock.restun(),
            "break-derp-conns": lambda _: magicsock.break_relays(),
            "break-tcp-conns": self._break_tcp,
            "force-netmap-update": lambda _: backend.apply(),
            "notify": self._notify,
            "control-knobs": lambda _: control_knobs(backend.netmap),
            "peer-disco-keys": self._disco_keys,
            "peer-relay-servers": lambda _: [],
            "current-netmap": self._current_netmap,
        }

    def run(self, action: str, body: bytes) -> Any:
        """None, or what the action answers. MeshdError "not_found" for a name that is not here."""
        chosen = self._actions.get(action)
        if chosen is None:
            raise MeshdError(f"this daemon has no debug action {action!r}", code="not_found")
        return chosen(body)

    def _break_tcp(self, _: bytes) -> None:
        raise MeshdError("TCP connection breaking not available on this platform", code="unsupported")

    def _notify(self, body: bytes) -> None:
        try:
            notify = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise MeshdError(str(error), code="invalid") from None
        self._backend.bus.send(notify)

    def _disco_keys(self, _: bytes) -> JSON:
        netmap = self._backend.netmap
        peers = netmap.sorted_peers() if netmap is not None else []
        return {node.key.text(): node.disco_key.text() for node in peers if node.disco_key is not None}

    def _current_netmap(self, _: bytes) -> JSON | None:
        netmap = self._netmap()
        if netmap is None:
            raise MeshdError("no netmap: this node is not logged in", code="unavailable")
        return netmap
