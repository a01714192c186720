"""The node that ``perf.scale`` measures takes in whole networks and every kind of change."""

from __future__ import annotations

import asyncio
import itertools

from perf.scale import frames
from perf.scale.child import apply
from perf.scale.wholenode import WholeNode

SIZE = 20
EXPECTED = {  # patched, changed, added, removed; filter
    "endpoint patch": ([1, 0, 0, 0], False),
    "online flag": ([1, 0, 0, 0], False),
    "key change": ([0, 1, 0, 0], False),
    "peer added": ([0, 0, 1, 0], False),
    "peer removed": ([0, 0, 0, 1], False),
    "filter rule changed": ([0, 0, 0, 0], True),
}


def run(scenario):
    async def whole():
        node = WholeNode()
        try:
            await node.feed(frames.whole(SIZE))
            await scenario(node)
        finally:
            node.close()

    asyncio.run(whole())


def test_whole_network_is_admitted_to_engine_and_paths():
    async def scenario(node):
        assert len(node.session.netmap.peers) == SIZE
        assert not node.session.netmap.refusals()
        assert len(node.engine.peers()) == SIZE
        assert all(node.magicsock.status(key) for key in node.engine.peers())
        assert len(node.service.status()["Peer"]) == SIZE

    run(scenario)


def test_deltas_change_what_their_names_say():
    async def scenario(node):
        for kind, messages in frames.deltas(SIZE).items():
            for message in itertools.islice(messages, 2 * SIZE + 1):  # twice around all peers
                change = await node.feed(message)
                moved = [len(one) for one in (change.patched, change.changed, change.added, change.removed)]
                assert (moved, change.filter_changed) == EXPECTED[kind], kind

    run(scenario)


def test_apply_gives_milliseconds_per_message():
    async def scenario(node):
        cost = await apply(node, itertools.islice(frames.deltas(SIZE)["online flag"], 9))
        assert cost["count"] == 6
        assert 0 < cost["median_ms"] <= cost["max_ms"]

    run(scenario)
