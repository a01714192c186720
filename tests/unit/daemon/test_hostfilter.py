"""What the user is told about the host's packet filter and forwarding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshd.core.firewall import ON, FirewallConfig
from meshd.core.prefs import Prefs, from_json
from meshd.core.warnables import WARNABLES
from meshd.daemon.hostfilter import HostFilter
from meshd.host.linux.netfilter import Outcome
from tests.unit.node.test_reconciler import node


class Host:
    problem = ""
    strict: tuple[str, ...] = ()

    def forwarding_problem(self, routes: list[str]) -> str:
        return self.problem if routes else ""

    def strict_interfaces(self) -> tuple[str, ...]:
        return self.strict


class Keeper:
    def __init__(self) -> None:
        self.wanted: list[FirewallConfig] = []
        self.looked = 0

    def want(self, config: FirewallConfig) -> None:
        self.wanted.append(config)

    def look(self) -> None:
        self.looked += 1


class World:
    def __init__(self, interfaces: Path) -> None:
        self.host, self.keeper = Host(), Keeper()
        self.told: dict[str, str | None] = {}
        self.modes: list[str] = []
        self.filter = HostFilter(self.host, self.told.__setitem__, self.modes.append, interfaces)
        self.filter.keeper = self.keeper

    def apply(self, **prefs: Any) -> None:
        self.filter.apply(node(1), from_json(prefs))

    @property
    def problems(self) -> dict[str, str]:
        return {code: text for code, text in self.told.items() if text}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_host_filter_follows_the_node(world: World) -> None:
    """RT-05."""
    world.apply()
    assert world.keeper.wanted[-1].mode == ON
    world.filter.changed()
    assert world.keeper.looked == 1
    world.filter.stop()
    assert world.keeper.wanted[-1] == FirewallConfig()
    assert world.problems == {}
    assert set(world.told) <= set(WARNABLES)


def test_host_filter_result_is_told(world: World) -> None:
    """RT-13."""
    world.filter.done(Outcome("no program", ""))
    assert world.problems == {"firewall": "no program"}
    world.filter.done(Outcome("", "nft"))
    assert world.problems == {}
    assert world.modes == ["", "nft"]


def test_host_filter_forwarding_is_told_while_routes_are_advertised(world: World) -> None:
    """file:ip_forward; RT-10."""
    world.host.problem = "off"
    world.apply()
    assert world.problems == {}
    world.apply(AdvertiseRoutes=["10.0.0.0/8"])
    assert "IP forwarding is disabled" in world.problems["ip-forwarding-off"]
    world.host.problem = ""
    world.filter.changed()
    assert world.problems == {}


def test_host_filter_exit_node_without_translation_is_told(world: World) -> None:
    """EX-03."""
    world.apply(AdvertiseRoutes=["0.0.0.0/0", "::/0"], NoSNAT=True)
    assert set(world.problems) == {"nosnat-with-advertised-exit-node"}
    world.apply(AdvertiseRoutes=["0.0.0.0/0"], NoSNAT=True)
    assert world.problems == {}


def test_host_filter_strict_checks_are_told_unless_answers_are_marked(world: World) -> None:
    """EX-09."""
    world.host.strict = ("eth0",)
    world.apply(ExitNodeID="n2")
    world.filter.done(Outcome(mode="nft", answers_marked=True))
    assert world.problems == {}
    world.filter.done(Outcome(mode="nft", answers_marked=False))
    assert "rp_filter=2" in world.problems["exit-node-misconfiguration"]
    world.apply(ExitNodeID="")
    assert world.problems == {}
    world.filter.done(Outcome(mode="nft", answers_marked=True))
    world.apply(ExitNodeID="n2", NetfilterMode=0)
    assert "exit-node-misconfiguration" in world.problems
    world.host.strict = ()
    world.filter.changed()
    assert world.problems == {}
    world.apply(ExitNodeID="n2")
    world.filter.done(Outcome(mode="nft"))
    world.host.strict = ("eth0",)
    world.filter.changed()
    assert world.problems == {}, "the rules for it are being made"
    world.filter.done(Outcome(mode="nft", answers_marked=True))
    assert world.problems == {}


def test_host_filter_docker_and_stateful_filtering_are_told(world: World, tmp_path: Path) -> None:
    world.apply(NoStatefulFiltering=False)
    assert world.problems == {}
    (tmp_path / "docker0").mkdir()
    world.filter.changed()
    assert set(world.problems) == {"docker-stateful-filtering"}
    world.filter.apply(node(1), Prefs())
    assert world.problems == {}
