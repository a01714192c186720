"""What a relay counts."""

from __future__ import annotations

import msgspec


class RelayCounters(msgspec.Struct):
    """Totals since the start of the process."""

    accepted: int = 0
    """Clients that finished the exchange of keys."""
    refused: int = 0
    """Clients that the admission check turned away."""
    protocol_errors: int = 0
    """Connections ended for bytes that are not DERP."""
    handshake_timeouts: int = 0
    write_timeouts: int = 0
    """Connections ended because nothing could be written for a while."""
    packets_received: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    dropped_unknown_destination: int = 0
    dropped_queue_full: int = 0
    throttled: int = 0
    """Times that reading from a client was paused for its rate limit."""

    def as_dict(self) -> dict[str, int]:
        return msgspec.structs.asdict(self)
