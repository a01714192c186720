"""The two kinds of map request. Both carry the node's full state: a server keeps what it saw last."""

from __future__ import annotations

from meshd.core.controleffects import NodeFacts
from meshd.wire.control import MapRequest


def stream_request(facts: NodeFacts, node_key: str, version: int) -> MapRequest:
    """The long poll."""
    return _request(facts, node_key, version, stream=True)


def update_request(facts: NodeFacts, node_key: str, version: int) -> MapRequest:
    """The lite update: store this, tell the peers, leave the stream alone."""
    return _request(facts, node_key, version, stream=False)


def _request(facts: NodeFacts, node_key: str, version: int, *, stream: bool) -> MapRequest:
    endpoints = facts.endpoints
    return MapRequest(
        version=version,
        compress="zstd",
        keep_alive=True,
        node_key=node_key,
        disco_key=facts.disco_public.text(),
        stream=stream,
        omit_peers=not stream,
        hostinfo=facts.full_hostinfo(),
        endpoints=None if endpoints is None else tuple(address for address, _ in endpoints),
        endpoint_types=None if endpoints is None else tuple(kind for _, kind in endpoints),
        tka_head=facts.lock_head,
        debug_flags=facts.debug_flags,
    )
