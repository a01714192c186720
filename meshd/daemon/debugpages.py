"""What the HTTP server of ``--debug`` shows of a running node."""

from __future__ import annotations

import json

from meshd.daemon.debugserver import JSON_TEXT, METRICS, TEXT, Page
from meshd.node.magicsock import MagicSock
from meshd.node.service import NodeService


def debug_pages(service: NodeService, magicsock: MagicSock) -> dict[str, Page]:
    """By path. Nothing in them is secret: keys are public ones, preferences are without theirs."""
    metrics = Page("counters for monitoring", METRICS, service.metrics)
    return {
        "/debug/metrics": metrics,
        "/metrics": metrics,
        "/debug/ipn": _json("state, addresses and peers, as mesh status --json", service.status),
        "/debug/netmap": _json("the network map, without keys", service.netmap),
        "/debug/prefs": _json("preferences, without keys", service.prefs),
        "/debug/health": _json("what is wrong with this node", service.health),
        "/debug/magicsock": _json("sockets, relays and the paths to peers", magicsock.debug_state),
        "/debug/pprof/goroutine": Page("where every task and thread stands", TEXT, service.stacks),
    }


def _json(what: str, read: object) -> Page:
    assert callable(read)
    return Page(what, JSON_TEXT, lambda: json.dumps(read(), indent=2, default=str) + "\n")
