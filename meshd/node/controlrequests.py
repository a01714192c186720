"""What a node asks of its coordination server beside login and map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time
from meshd.base.log import get_logger, kv
from meshd.base.version import CAPABILITY_VERSION
from meshd.core.netmap import Netmap
from meshd.node.controlport import Control

log = get_logger(__name__)

REPORT_PATIENCE_S = 5.0


class ControlRequests:
    """Requests in the name of the node that we are now; MeshdError "unavailable" when we are none."""

    def __init__(
        self, clock: Clock, control: Callable[[], Control | None], netmap: Callable[[], Netmap | None]
    ) -> None:
        self._clock = clock
        self._control = control
        self._netmap = netmap

    async def ask(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """``NodeKey`` is added to ``body``. Status and body of the answer."""
        control, netmap = self._control(), self._netmap()
        if control is None or netmap is None:
            raise MeshdError("no netmap", code="unavailable")
        return await control.request(method, path, msgspec.json.encode(body | {"NodeKey": netmap.node_key.text()}))

    async def expire_key(self, expiry: float) -> None:
        """Have our key expire at a time (unix seconds), which may only be sooner than it would."""
        control = self._control()
        if control is None or self._netmap() is None:
            raise MeshdError("not running", code="unavailable")
        await control.set_expiry_sooner(expiry)

    async def report_disconnect(self, profile: str, reason: str) -> None:
        """Tell why a user disconnects (SM-18); that it cannot be told does not keep him."""
        details = f'"{profile}" is being disconnected: {reason[:1000]}'
        body = {"Version": CAPABILITY_VERSION, "Action": "DISCONNECT_NODE", "Details": details}
        body["Timestamp"] = format_time(self._clock.wall())
        try:
            async with asyncio.timeout(REPORT_PATIENCE_S):
                status, _ = await self.ask("POST", "/machine/audit-log", body)
        except (MeshdError, TimeoutError) as error:
            log.warning("disconnect_unreported", extra=kv(reason=str(error) or "no answer"))
        else:
            log.info("disconnect_reported", extra=kv(status=status))
