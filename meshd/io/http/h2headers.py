"""Header blocks of HTTP/2 requests as our server has them."""

from __future__ import annotations

from collections.abc import Iterable

import hpack


class RequestHeaderDecoder(hpack.Decoder):
    """Leaves out Host where ``:authority`` names the server: it has no meaning then (RFC 9113 8.3.1).

    The library ends the connection when the two differ, and clients are about that write the port in one of them only.
    """

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:
        headers = list(super().decode(data, raw))
        if any(header[0] in (b":authority", ":authority") for header in headers):
            headers = [header for header in headers if header[0] not in (b"host", "host")]
        return headers
