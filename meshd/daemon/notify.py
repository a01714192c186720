"""Telling the service manager how we are (sd_notify(3)). Silent when there is none."""

from __future__ import annotations

import os
import socket

from meshd.base.log import get_logger, kv

log = get_logger(__name__)

MAX_STATUS = 1000  # characters


class ServiceNotifier:
    """Sends to ``$NOTIFY_SOCKET``; a leading ``@`` means the abstract namespace."""

    def __init__(self, address: str | None = None) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._last_status = ""

    @property
    def present(self) -> bool:
        return bool(self._address)

    def ready(self) -> None:
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line about the daemon's state; repeating the last one sends nothing."""
        if text != self._last_status:
            self._last_status = text
            # A line each is an order to the service manager, and names come from the coordination server.
            self._send("STATUS=" + "".join(c if c.isprintable() else " " for c in text[:MAX_STATUS]))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(1.0)
                channel.connect(address)
                channel.send(message.encode())
        except OSError as error:
            log.warning("service_manager_unreachable", extra=kv(reason=error))
