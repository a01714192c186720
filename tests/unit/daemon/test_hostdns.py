"""The DNS of the host as one node needs it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from meshd.core.dnscompile import OSConfig, ResolverConfig
from meshd.core.dnsplan import DNSPlan, dns_plan
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs
from meshd.daemon import hostdns
from meshd.daemon.hostdns import HostNames, hosts_beyond
from meshd.host.linux.dnskeeper import Outcome
from meshd.host.resolvconf import host_resolvers
from meshd.wire.control import Resolver
from tests.unit.core.mapworld import joined, node

DNS = {
    "Proxied": True,
    "Routes": {"mesh.test": [], "corp.test": [{"Addr": "10.0.0.9"}]},
    "Domains": ["mesh.test"],
    "ExtraRecords": [{"Name": "db.other.example", "Value": "100.64.0.9"}, {"Name": "x.mesh.test", "Value": "::1"}],
}


class Keeper:
    def __init__(self) -> None:
        self.wanted: list[tuple[DNSPlan, tuple[str, ...]]] = []
        self.looks = 0
        self.outcome = Outcome()

    def want(self, plan: DNSPlan, hosts: tuple[str, ...]) -> None:
        self.wanted.append((plan, hosts))

    def look(self) -> None:
        self.looks += 1


class World:
    def __init__(self) -> None:
        self.told: dict[str, str | None] = {}
        self.configs: list[ResolverConfig] = []
        self.names = HostNames(lambda code, text: self.told.__setitem__(code, text), self.configs.append)
        self.keeper = Keeper()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def netmap() -> Netmap:
    found = joined(node(2), node(3, Name="shared.elsewhere.test."), DNSConfig=DNS).netmap
    assert found is not None
    return found


def test_apply_with_a_keeper_hands_over_plan_and_loose_names(world: World, netmap: Netmap) -> None:
    """DN-11: the host is told of names that no suffix covers."""
    world.names.keeper = world.keeper
    world.names.apply(netmap, Prefs())
    ((plan, hosts),) = world.keeper.wanted
    assert plan.accepted
    assert hosts == ("db.other.example", "shared.elsewhere.test")
    world.names.apply(None, None)
    assert world.keeper.wanted[-1] == (DNSPlan(), ())
    world.names.changed()
    assert world.keeper.looks == 1
    assert world.configs == []


def test_apply_without_accept_dns_wants_nothing_of_the_host(world: World, netmap: Netmap) -> None:
    """DN-02."""
    world.names.keeper = world.keeper
    world.names.apply(netmap, Prefs(corp_dns=False))
    ((plan, hosts),) = world.keeper.wanted
    assert (plan.routes, plan.defaults, plan.search) == ({}, (), ())
    assert hosts == ()


def test_apply_in_userspace_mode_tells_only_our_resolver(
    world: World, netmap: Netmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program of the host could ask us: its DNS is left alone."""
    monkeypatch.setattr(hostdns, "host_resolvers", lambda: OSConfig((ip_address("192.168.1.1"),)))
    world.names.apply(netmap, Prefs())
    assert world.configs[-1].routes == {"corp.test": (Resolver(addr="10.0.0.9"),), "": (Resolver(addr="192.168.1.1"),)}
    world.names.apply(None, None)
    assert world.configs[-1] == ResolverConfig()


def test_apply_in_userspace_mode_with_unreadable_file_goes_on(
    world: World, netmap: Netmap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hostdns, "host_resolvers", lambda: host_resolvers(str(tmp_path / "none")))
    world.names.apply(netmap, Prefs())
    assert set(world.configs[-1].routes) == {"corp.test"}


def test_done_reports_each_problem_and_its_end(world: World) -> None:
    """Section 9: the codes that concern DNS."""
    world.names.done(Outcome("unread", "unset", "wired", overwritten=True))
    assert world.told == {
        "dns-read-os-config-failed": "unread",
        "dns-set-os-config-failed": "unset",
        "dns-manager": "wired",
        "resolv-conf-overwritten": "overwritten",
    }
    world.names.done(Outcome())
    assert set(world.told.values()) == {None}


def test_base_is_what_the_keeper_found_else_the_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-14: dns-osconfig."""
    file = OSConfig((ip_address("10.0.0.1"),))
    monkeypatch.setattr(hostdns, "host_resolvers", lambda: file)
    assert world.names.base() == file
    world.names.keeper = world.keeper
    assert world.names.base() == file
    found = OSConfig((ip_address("10.0.0.2"),))
    world.keeper.outcome = Outcome(base=found)
    assert world.names.base() == found


def test_hosts_beyond_without_magic_dns_are_those_outside_our_suffix() -> None:
    """DN-11: the suffix stands for the others, however many they are."""
    dns = {"Proxied": False, "Resolvers": [{"Addr": "10.0.0.9"}]}
    netmap = joined(node(2), node(3, Name="shared.elsewhere.test."), DNSConfig=dns).netmap
    assert netmap is not None
    plan = dns_plan(netmap, Prefs())
    assert plan.unrouted == "mesh.test"
    assert hosts_beyond(netmap, plan) == ("shared.elsewhere.test",)


def test_hosts_beyond_nothing_that_was_not_accepted(netmap: Netmap) -> None:
    plan: Any = DNSPlan(records={"a.example": (ip_address("100.64.0.1"),)})
    assert hosts_beyond(netmap, plan) == ()
