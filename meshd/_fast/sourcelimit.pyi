"""How many datagrams that the event loop must look at are taken from one source.

A source is an IPv4 address or an IPv6 /64. What is above the rate never leaves the thread that received it, so that
a flood from one place costs the others nothing. Sources that were quiet longest are forgotten first, so a flood from
very many places is not stopped here: that is what WireGuard's cookies are for.
"""

from typing import final

HANDSHAKE: int
"""Kind: messages that may cost a key exchange."""

OTHER: int
"""Kind: path messages, STUN, cookie replies."""

HANDSHAKES_PER_S: int
OTHERS_PER_S: int

BURST_MESSAGES: int
"""What a source that was quiet may send at once, of either kind."""

@final
class SourceLimit:
    """The limits of one receiving thread. ``seed``: random, so that nobody can choose whose place he takes."""

    def __init__(self, seed: int) -> None: ...
    def allow(self, address: bytes, kind: int, now: int, /) -> bool:
        """Whether one more is taken. address: 4 or 16 bytes; now: nanoseconds of a monotonic clock.

        ValueError for another length or kind.
        """
