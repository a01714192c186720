"""Routes changed step by step are those computed from scratch."""

from __future__ import annotations

import itertools
from ipaddress import ip_network as net
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.addr import IPPrefix
from meshd.core import routes
from meshd.core.routeplan import RoutePlan
from meshd.core.routes import RouterConfig, RouteTable, router_config

PREFIXES = [
    *(net(f"100.64.0.{n}/32") for n in range(1, 7)),
    *(net(f"fd7a:115c:a1e0::{n}/128") for n in range(1, 4)),
    *map(
        net,
        (
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "192.168.0.0/16",
            "192.168.1.0/24",
            "100.64.0.0/10",
            "fd7a:115c:a1e0::/48",
            "100.100.100.100/32",
            "8.8.8.8/32",
            "2001:db8::/32",
            "fe80::/64",
        ),
    ),
]
LOCAL = ["10.1.2.0/24", "192.168.1.0/24", "127.0.0.0/8", "fe80::/64", "2001:db8:1::/48", "10.0.0.5/32", "0.0.0.0/0"]
LOCAL += ["100.70.1.0/24"]
CARRIED = st.lists(st.sampled_from(PREFIXES), max_size=5, unique=True).map(tuple)
STEPS = st.lists(st.lists(st.tuples(st.integers(0, 4), CARRIED), max_size=3), max_size=12)


class Host:
    """Holds what it is told to."""

    def __init__(self, config: RouterConfig) -> None:
        self.routes, self.throws = set(config.routes), set(config.throws)

    def change(self, plan: RoutePlan, again: Any) -> None:
        change = plan.changes()
        if change is None:
            self.__init__(again())  # type: ignore[misc]
            return
        told: list[IPPrefix] = [*change.routes, *change.throws, *change.gone]
        assert len(told) == len(set(told))
        self.routes = self.routes.difference(told) | set(change.routes)
        self.throws = self.throws.difference(told) | set(change.throws)


@given(
    STEPS,
    st.lists(st.booleans(), max_size=6),
    st.lists(st.sampled_from(LOCAL), unique=True),
    st.booleans(),
    st.booleans(),
    st.integers(0, 4),
)
def test_routeplan_any_steps_end_where_a_full_computation_does(
    steps: list[list[tuple[int, tuple[IPPrefix, ...]]]],
    one_route: list[bool],
    local: list[str],
    exit_node: bool,
    lan_access: bool,
    limit: int,
) -> None:
    """RT-03 to RT-07, step by step and at once."""
    own = (net("100.64.0.99/32"),)
    attached = tuple(map(net, local))
    options: dict[str, Any] = {"exit_node": exit_node, "lan_access": lan_access}
    before, routes.MAX_SINGLE_ROUTES = routes.MAX_SINGLE_ROUTES, limit  # so that few peers reach it
    try:
        table = RouteTable()
        plan = RoutePlan(table)
        host = Host(plan.config(own, attached, **options))
        for step, preferred in itertools.zip_longest(steps, one_route[: len(steps)], fillvalue=False):
            table.prefer_one_route(preferred)
            for peer, carried in step:
                table.set_peer(bytes([peer]), carried)
            host.change(plan, lambda: plan.config(own, attached, **options))
            assert not table.touched
            whole = router_config(own, table.routes(), attached, **options)
            assert (host.routes, host.throws) == (whole.routes, whole.throws)
            assert all(table.wants(p) == (p in table.routes()) for p in PREFIXES)
    finally:
        routes.MAX_SINGLE_ROUTES = before


def test_routeplan_second_peer_brings_the_one_route_when_that_is_preferred() -> None:
    """RT-04."""
    own = (net("100.64.0.1/32"),)
    table = RouteTable()
    table.prefer_one_route(True)
    table.set_peer(b"first", (net("100.64.0.2/32"),))
    plan = RoutePlan(table)
    host = Host(plan.config(own, ()))
    table.set_peer(b"second", (net("100.64.0.3/32"),))
    host.change(plan, lambda: plan.config(own, ()))
    assert net("100.64.0.0/10") in host.routes
    assert host.routes.isdisjoint((net("100.64.0.2/32"), net("100.64.0.3/32")))


def test_routeplan_change_names_only_what_changed() -> None:
    table = RouteTable()
    for number in range(1, 200):
        table.set_peer(bytes([number]), (net(f"100.64.1.{number}/32"), net(f"fd7a:115c:a1e0::{number:x}/128")))
    plan = RoutePlan(table)
    plan.config((net("100.64.0.1/32"),), ())
    table.set_peer(b"new", (net("100.64.2.1/32"), net("fd7a:115c:a1e0::ff:1/128")))
    change = plan.changes()
    assert change is not None
    assert (change.routes, change.throws, change.gone) == ((net("100.64.2.1/32"),), (), ())
