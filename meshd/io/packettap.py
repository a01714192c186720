"""A copy of every packet that passes a network interface, for as long as somebody looks."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv

log = get_logger(__name__)

Deliver = Callable[[bool, bytes], None]
"""Called with whether the host sent the packet into the interface, and the packet from its IP header on."""

_EVERY_PROTOCOL = 3  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING: handed to the interface by this host (packet(7))
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER_BYTES = 4 << 20
_LONGEST = 1 << 17
PACKETS_AT_ONCE = 64
"""Read before others on the event loop get their turn."""


class PacketTap:
    """A packet socket (packet(7)) on one interface. The kernel copies for us, so that packets which nobody captures
    cost nothing at all; what comes faster than it is read is dropped from the copy alone, and counted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interface: str, deliver: Deliver) -> None:
        """Begins at once. Raises MeshdError when this process may not, or there is no such interface."""
        self._loop = loop
        self._deliver = deliver
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        except (OSError, AttributeError) as error:
            raise _refused(interface, error) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((interface, _EVERY_PROTOCOL))
        except OSError as error:
            self._socket.close()
            raise _refused(interface, error) from None
        loop.add_reader(self._socket, self._ready)

    def close(self) -> int:
        """End; how many packets passed unseen because they were not read in time."""
        self._loop.remove_reader(self._socket)
        try:
            raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            dropped: int = struct.unpack("=II", raw)[1]
        except OSError as error:
            log.debug("tap_statistics_unknown", extra=kv(reason=error.strerror))
            dropped = 0
        self._socket.close()
        return dropped

    def _ready(self) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                data, (_, _, kind, _, _) = self._socket.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # told once; packets come again when the interface is up
                    # Some event loops hear no more of a descriptor that had an error, until it is given to them anew.
                    self._loop.remove_reader(self._socket)
                    self._loop.add_reader(self._socket, self._ready)
                    return
                log.warning("tap_failed", extra=kv(reason=error.strerror))
                self._loop.remove_reader(self._socket)
                return
            self._deliver(kind == _OUTGOING, data)


def _refused(interface: str, error: BaseException) -> MeshdError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return MeshdError(
        f"cannot capture on {interface}: {reason}",
        code="unsupported",
        hint="Capturing needs CAP_NET_RAW and a Linux kernel with packet sockets.",
    )
