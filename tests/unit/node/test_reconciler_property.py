"""Any sequence of deltas leaves tunnels, paths, filter and routes as one full map of the final state does."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshd.core import mapsession
from meshd.core.mapchange import MapChange
from meshd.core.mapsession import MapSession
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs
from meshd.node import reconciler
from tests.unit.core.mapworld import WALL, message, node, own, send
from tests.unit.core.test_mapsession_property import IDS, MESSAGES, nodes
from tests.unit.node.test_reconciler import PRIVATE, World

DISCO = st.integers(0, 3).map(lambda n: f"discokey:{n:064x}")
REACHABLE = st.fixed_dictionaries(
    {"NodeID": IDS}, optional={"DERPRegion": st.integers(1, 3), "DiscoKey": DISCO, "Online": st.booleans()}
)
RULES = [
    {"SrcIPs": sources, "DstPorts": [{"IP": "*", "Ports": {"First": 1, "Last": 9}}]}
    for sources in (["100.64.0.2"], ["cap:x"], ["cap:x", "cap:y", "100.64.0.3"])
]
STEPS = st.one_of(
    MESSAGES,
    st.fixed_dictionaries({"PeersChangedPatch": st.lists(REACHABLE, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"PacketFilter": st.lists(st.sampled_from(RULES), max_size=2)}),
)
PREFS = st.builds(
    Prefs,
    want_running=st.just(True),
    route_all=st.booleans(),
    shields_up=st.booleans(),
    exit_node_id=st.sampled_from(["", "s3"]),
)


def state(world: World) -> tuple[Any, ...]:
    return (
        world.engine.peers,
        world.paths.peers,
        world.engine.addresses,
        world.router.routes,
        world.router.throws,
        world.reconciler._filter_program,
    )


def fresh(netmap: Netmap, prefs: Prefs, *, sliced: bool = False) -> World:
    world = World([ip_network("10.1.2.0/24"), ip_network("192.168.1.0/24")], sliced=sliced)
    world.reconciler.apply(netmap, prefs, PRIVATE, None)
    return world


@given(st.lists(STEPS, max_size=10), st.lists(PREFS, min_size=1, max_size=2), st.integers(0, 10))
def test_reconciler_any_deltas_equal_a_full_apply(steps: list[dict[str, Any]], prefs: list[Prefs], switch: int) -> None:
    """RT-01, NM-03."""
    session = MapSession()
    send(session, Node=own(), PacketFilter=[RULES[1]])
    assert session.netmap is not None
    world = fresh(session.netmap, prefs[0])
    for number, fields in enumerate(steps):
        chosen = prefs[0] if number < switch else prefs[-1]
        change = send(session, **fields)
        world.reconciler.apply(session.netmap, chosen, PRIVATE, change)
        assert state(world) == state(fresh(session.netmap, chosen))


@given(st.lists(STEPS, max_size=10), st.lists(st.integers(0, 2), min_size=10, max_size=10), st.integers(0, 10))
def test_reconciler_slices_between_deltas_end_where_a_full_apply_does(
    steps: list[dict[str, Any]], turns: list[int], stop: int
) -> None:
    """A map applied in slices, with deltas, new preferences and a stop in between."""
    before, reconciler.SLICE = reconciler.SLICE, 1
    try:
        session = MapSession()
        send(session, Node=own(), Peers=[node(n) for n in range(2, 8)])
        assert session.netmap is not None
        prefs = [Prefs(want_running=True, route_all=wanted) for wanted in (True, False)]
        world = fresh(session.netmap, prefs[0], sliced=True)
        for number, fields in enumerate(steps):
            for _ in range(min(turns[number], len(world.later))):
                world.later.pop(0)()
            if number == stop:
                world.reconciler.stop()
                while world.later:
                    world.later.pop(0)()
                assert world.engine.peers == world.paths.peers == {}
                assert not world.router.routes
            world.reconciler.apply(session.netmap, prefs[number % 4 == 3], PRIVATE, send(session, **fields))
        world.reconciler.apply(session.netmap, prefs[0], PRIVATE, MapChange())
        while world.later:
            world.later.pop(0)()
        assert state(world) == state(fresh(session.netmap, prefs[0]))
    finally:
        reconciler.SLICE = before


@given(st.lists(nodes(), max_size=8, unique_by=lambda n: n["ID"]), st.lists(nodes(), max_size=8))
def test_mapsession_prepared_message_gives_what_an_unprepared_one_does(
    peers: list[dict[str, Any]], changed: list[dict[str, Any]]
) -> None:
    before, mapsession.SLICE = mapsession.SLICE, 2
    try:
        one, two = MapSession(), MapSession()
        for session, prepared in ((one, True), (two, False)):
            for told, response in (
                (peers, message(Node=own(), Peers=peers)),
                (changed, message(PeersChanged=changed, PeersRemoved=[3])),
            ):
                if prepared:
                    steps = len(list(session.prepare(response)))
                    assert steps == ((len(told) + 1) // 2 if len(told) > 2 else 0)
                session.apply(response, WALL)
        assert one.netmap is not None
        assert two.netmap is not None
        assert one.netmap.peers == two.netmap.peers
        assert one.netmap.refused == two.netmap.refused
    finally:
        mapsession.SLICE = before
