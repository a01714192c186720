"""Any sequence of deltas leaves tunnels, paths, filter and routes as one full map of the final state does."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.mapsession import MapSession
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs
from tests.unit.core.mapworld import own, send
from tests.unit.core.test_mapsession_property import IDS, MESSAGES
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


def fresh(netmap: Netmap, prefs: Prefs) -> World:
    world = World(attached=[ip_network("10.1.2.0/24"), ip_network("192.168.1.0/24")])
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
