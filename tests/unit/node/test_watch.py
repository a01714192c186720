"""What a watcher of the node is told, by the bits of its mask."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.base.errors import WireError
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.nodeadapter import node_from_wire
from meshd.core.state import State
from meshd.node import nodejson
from meshd.node.bus import SLICE
from meshd.node.peernews import tell_peers
from meshd.node.service import NodeService
from meshd.wire.control import ClientVersion, FilterRule
from meshd.wire.control import Node as WireNode
from tests.unit.node.backendworld import KEY, Fixture, log_in, netmap

ENGINE, STATE, PREFS, NETMAP, NO_KEYS, FILES, HEALTH = 1, 2, 4, 8, 16, 64, 128


def service(made: Fixture) -> NodeService:
    peer = SimpleNamespace(rx_bytes=10, tx_bytes=20, last_handshake=5.0, in_engine=True)
    engine: Any = SimpleNamespace(used_peers=lambda: [KEY.public()], peer_status=lambda key: peer, counters=dict)
    paths: Any = SimpleNamespace(
        live_relays=1, home_relay=0, endpoints=[], relay_code=lambda region: "", status=lambda key: None
    )
    host: Any = SimpleNamespace()
    resolver: Any = SimpleNamespace()
    return NodeService(
        made.backend,
        engine,
        paths,
        made.clock,
        tun=True,
        counters=dict,
        host=host,
        resolver=resolver,
        stop=lambda: None,
    )


def run(test: Callable[[Fixture, NodeService], Awaitable[None]]) -> None:
    async def body() -> None:
        made = Fixture()
        made.backend.begin()
        await test(made, service(made))
        await made.backend.close()

    asyncio.run(body())


def waiting(watcher: Any) -> list[dict[str, Any]]:
    return list(watcher._queue)


def test_watch_initial_message_has_what_the_mask_asks_for() -> None:
    """NB-01, NB-02, watch:InitialDriveShares, watch:InitialOutgoingFiles: a session id of 16 hex digits; health alone
    says nothing, nor do files this node never gets."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        for mask in (0, ENGINE, NO_KEYS, FILES, HEALTH):
            assert waiting(node.watch(mask)) == []
        (first,) = waiting(node.watch(STATE))
        assert set(first) == {"SessionID", "State"}
        assert re.fullmatch("[0-9a-f]{16}", first["SessionID"])
        assert waiting(node.watch(STATE))[0]["SessionID"] != first["SessionID"]
        (first,) = waiting(node.watch(STATE | PREFS | NETMAP | HEALTH))
        assert set(first) == {"SessionID", "State", "Prefs", "NetMap", "SelfChange", "Health"}
        assert first["NetMap"]["SelfNode"]["ID"] == 1
        assert set(waiting(node.watch(PREFS | HEALTH))[0]) == {"Prefs", "Health"}

    run(test)


@pytest.mark.parametrize("bit", [1 << 5, 1 << 10, 1 << 11, 1 << 18])
def test_watch_that_asks_for_a_beginning_gets_one_though_there_is_nothing_to_say(bit: int) -> None:
    """NB-02: clients wait for it: no shares, no suggestion, no news of releases, no tunnels are an answer, too."""

    async def test(made: Fixture, node: NodeService) -> None:
        assert waiting(node.watch(bit)) == [{}]
        assert [set(told) for told in waiting(node.watch(bit | HEALTH))] == [{"Health"}]

    run(test)


def test_watch_pending_login_url_is_in_the_initial_message() -> None:
    """NB-02, NB-03, watch:InitialState: and is not told again to a reader who has it."""

    async def test(made: Fixture, node: NodeService) -> None:
        made.backend.edit_prefs({"ControlURL": "http://control.test", "ControlURLSet": True})
        made.control.report(auth_url="http://control.test/a", can_continue=False)
        assert made.backend.state is State.NEEDS_LOGIN
        watcher = node.watch(STATE)
        assert waiting(watcher)[0]["BrowseToURL"] == "http://control.test/a"
        made.backend.bus.send({"BrowseToURL": "http://control.test/a"})
        assert len(waiting(watcher)) == 1

    run(test)


def test_watch_notifications_carry_no_private_keys() -> None:
    """INV-3, NB-05, NB-06, watch:NoPrivateKeys, notify:Prefs: neither preferences nor network map, with the
    bit that asks for that and without it."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        watchers = [node.watch(PREFS | NETMAP), node.watch(PREFS | NETMAP | NO_KEYS)]
        made.backend.edit_prefs({"Hostname": "x", "HostnameSet": True})
        for watcher in watchers:
            told = waiting(watcher)
            assert len(told) >= 2
            assert KEY.raw.hex() not in str(told)
            assert "PrivateKey" not in told[0]["NetMap"]

    run(test)


def test_watch_engine_statistics_while_somebody_wants_them() -> None:
    """SM-08, NB-04, watch:WatchEngineUpdates."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        watcher = node.watch(ENGINE)
        timer = node._engine_timer
        assert timer is not None
        timer.cancel()
        node._tell_engine()
        (told,) = waiting(watcher)
        assert told["Engine"]["RBytes"] == 10
        assert told["Engine"]["NumLive"] == 1
        (live,) = told["Engine"]["LivePeers"].values()
        assert live == {
            "NodeKey": KEY.public().text(), "TxBytes": 20, "RxBytes": 10, "LastHandshake": "1970-01-01T00:00:05Z"
        }  # fmt: skip
        assert set(told["Engine"]) == {"RBytes", "WBytes", "NumLive", "LiveDERPs", "LivePeers"}
        timer = node._engine_timer
        assert timer is not None
        timer.cancel()
        await watcher.aclose()
        node._tell_engine()
        assert node._engine_timer is None

    run(test)


@pytest.mark.parametrize(
    ("name", "bit", "fields"),
    [
        ("WatchEngineUpdates", 1, set()),  # nothing at first, statistics later
        ("InitialState", 1 << 1, {"SessionID", "State"}),
        ("InitialPrefs", 1 << 2, {"Prefs"}),
        ("InitialNetMap", 1 << 3, {"NetMap", "SelfChange"}),
        ("NoPrivateKeys", 1 << 4, set()),  # there never are any
        ("InitialHealthState", 1 << 7, set()),  # beside another beginning only
        ("InitialSuggestedExitNode", 1 << 10, {"SuggestedExitNode"}),
        ("InitialClientVersion", 1 << 11, {"ClientVersion"}),
        ("InitialStatus", 1 << 14, {"InitialStatus"}),
        ("SysPolicyChanges", 1 << 17, {"Policy"}),
    ],
)
def test_watch_bit_alone_asks_for_its_fields(name: str, bit: int, fields: set[str]) -> None:
    """NB-01, NB-02: a bit brings what is its own and nothing else; the engine's statistics come as time goes on."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        node._last_suggestion = (made.backend.profiles.current.id, "n2")
        made.backend.client_version = ClientVersion(running_latest=True)
        watcher = node.watch(bit)
        assert set().union(*waiting(watcher)) == fields
        beside = set().union(*waiting(node.watch(bit | STATE)))
        assert beside == fields | {"SessionID", "State"} | ({"Health"} if name == "InitialHealthState" else set())
        if name == "WatchEngineUpdates":
            assert node._engine_timer is not None
            node._engine_timer.cancel()
            node._tell_engine()
            assert [set(told) for told in waiting(watcher)] == [{"Engine"}]
        if node._engine_timer is not None:
            node._engine_timer.cancel()

    run(test)


def test_watch_netmap_has_the_fields_that_clients_read() -> None:
    """NM-04, NB-06, watch:InitialNetMap: what the official command prints as network map, with policy and lock."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        (told,) = waiting(node.watch(NETMAP))
        expected = {
            "SelfNode", "AllCaps", "NodeKey", "MachineKey", "Peers", "DNS", "PacketFilter", "PacketFilterRules",
            "SSHPolicy", "CollectServices", "DERPMap", "DisplayMessages", "TKAEnabled", "TKAHead", "Domain",
            "DomainAuditLogID", "UserProfiles",
        }  # fmt: skip
        assert expected <= set(told["NetMap"])
        assert told["NetMap"]["TKAEnabled"] is False
        assert told["NetMap"]["TKAHead"] == "A" * 52

    run(test)


def test_watch_netmap_comes_in_the_first_message_only() -> None:
    """watch:NoNetMap, notify:NetMap: later changes are told piece by piece, with the bit and without it."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        watchers = [node.watch(NETMAP), node.watch(NETMAP | 1 << 13)]
        log_in(made)
        made.backend.edit_prefs({"Hostname": "x", "HostnameSet": True})
        for watcher in watchers:
            first, *later = waiting(watcher)
            assert "NetMap" in first
            assert later
            assert not any("NetMap" in told for told in later)

    run(test)


def test_watch_bit_of_tunnel_states_is_accepted() -> None:
    """watch:PeerWireGuardState: nothing is told, and nothing breaks."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        assert waiting(node.watch(1 << 18)) == [{}]
        assert set(waiting(node.watch(1 << 18 | STATE))[0]) == {"SessionID", "State"}

    run(test)


@pytest.mark.parametrize("message", [b'{"KeepAlive":true}', b"{}", b'{"Node":{}}', b"[]"])
def test_candidate_netmap_of_a_message_that_brings_none_is_refused(message: bytes) -> None:
    """C2N `/debug/netmap`: a keep-alive may come first on a stream, but there is nothing to show of it."""

    async def test(made: Fixture, node: NodeService) -> None:
        with pytest.raises(WireError):
            node.candidate_netmap(message)

    run(test)


async def turns_of(work: Awaitable[Any]) -> tuple[Any, int]:
    """What is awaited, and how often everything else had its turn meanwhile."""
    turns, over = 0, False

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.ensure_future(count())
    value = await work
    over = True
    await counter
    return value, turns


MANY = 3000
RULES = tuple(FilterRule(src_ips=tuple(f"100.64.{n}.{m}" for m in range(250))) for n in range(20))


def large_network() -> Netmap:
    made = netmap(KEY)
    made.filter_rules = RULES
    for n in range(2, MANY + 2):
        made.peers[n] = node_from_wire(WireNode(id=n, stable_id=f"n{n}", name=f"h{n}.", key=key_text(n)))
    return made


def key_text(number: int) -> str:
    return f"nodekey:{number:064x}"


@pytest.mark.parametrize(("bit", "name", "member"), [(NETMAP, "NetMap", "Peers"), (1 << 14, "InitialStatus", "Peer")])
def test_watch_whole_of_a_large_network_is_made_in_slices_as_it_was(bit: int, name: str, member: str) -> None:
    """NB-02: 10 000 peers held up everything else for half a second, for every watcher that asked. What happens after a
    watcher has begun is told after its beginning and is not in it."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        network = made.backend.netmap = large_network()
        whole = await node.netmap() if bit == NETMAP else node.status()
        watcher = node.watch(bit)
        del network.peers[2]
        made.backend.bus.send({"ErrMessage": "later"})
        first, turns = await turns_of(anext(watcher))
        assert first[name] == whole
        assert len(first[name][member]) == MANY
        assert turns >= MANY // SLICE - 1
        assert await anext(watcher) == {"ErrMessage": "later"}

    run(test)


def test_watch_map_that_is_new_as_a_whole_is_described_once_for_all_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """NB-02: after each reconnect, and in slices."""
    described: list[int] = []

    def count(node: Node, suffix: str) -> dict[str, Any]:
        described.append(node.id)
        return {"ID": node.id}

    async def test(made: Fixture, node: NodeService) -> None:
        monkeypatch.setattr(nodejson, "node_json", count)
        watchers = [node.watch(1 << 12) for _ in range(3)]
        tell_peers(made.backend.bus, large_network(), None)
        assert len(described) < MANY, "the others wait for somebody to read them"
        told, turns = await turns_of(asyncio.gather(*(anext(watcher) for watcher in watchers)))
        assert [[node["ID"] for node in news["PeersChanged"]] for news in told] == [list(range(2, MANY + 2))] * 3
        assert len(described) == MANY
        assert turns >= MANY // SLICE - 1

    run(test)


def test_netmap_of_rules_with_many_sources_is_made_in_slices() -> None:
    """NB-02: a filter of a large network names every peer."""

    async def test(made: Fixture, node: NodeService) -> None:
        log_in(made)
        network = made.backend.netmap = large_network()
        network.peers.clear()
        shown, turns = await turns_of(node.netmap())
        assert [len(match["Srcs"]) for match in shown["PacketFilter"]] == [250] * 20
        assert [rule["SrcIPs"][0] for rule in shown["PacketFilterRules"]] == [f"100.64.{n}.0" for n in range(20)]
        assert turns >= 8

    run(test)
