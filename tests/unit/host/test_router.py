"""The Linux router beside a kernel that refuses some of it."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.core.routeplan import RouteChange
from meshd.core.routes import RouterConfig
from meshd.host.linux import router as module
from meshd.host.linux.journal import Journal
from meshd.host.linux.router import TABLE, LinuxRouter, clean_up, note_unused, policy_rules
from meshd.wire import netlink as nl

OWN = (ip_network("100.64.0.1/32"), ip_network("fd7a:115c:a1e0::1/128"))
PEERS = frozenset({ip_network("100.64.0.2/32"), ip_network("fd7a:115c:a1e0::2/128")})
CONFIG = RouterConfig(OWN, PEERS)
_KINDS = {nl.RTM_NEWRULE: "rule", nl.RTM_NEWADDR: "address", nl.RTM_NEWROUTE: "route"}


class Kernel:
    """Keeps the policy rules; ``refuse`` are rules that it does not take, and how it says so."""

    def __init__(self) -> None:
        self.refuse: dict[nl.Rule, int] = {}
        self.held: list[nl.Rule] = []
        self.added: list[tuple[str, int]] = []
        self.routing: list[int] = []

    def interface_index(self, _: str) -> int:
        return 7

    def execute(self, requests: Iterable[nl.Request]) -> list[int]:
        return [self._one(request) for request in requests]

    def _one(self, request: nl.Request) -> int:
        if request.kind in (nl.RTM_NEWRULE, nl.RTM_DELRULE):
            rule = nl.decode_rule(nl.Message(request.kind, 0, request.body))
            if rule in self.refuse:
                return self.refuse[rule]
            if request.kind == nl.RTM_DELRULE:
                return self._delete(rule)
            if rule in self.held:
                return errno.EEXIST
            self.held.append(rule)
        if request.kind in _KINDS:
            self.added.append((_KINDS[request.kind], request.body[0]))
        if request.kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE):
            self.routing.append(request.kind)
        return 0

    def _delete(self, rule: nl.Rule) -> int:
        if rule not in self.held:
            return errno.ENOENT
        self.held.remove(rule)
        return 0

    def rules(self, family: int) -> list[nl.Rule]:
        return [rule for rule in self.held if rule.family == family]

    def addresses(self) -> list[nl.InterfaceAddress]:
        return []

    def routes(self, _: int) -> list[nl.Route]:
        return []


class World:
    def __init__(self, folder: Path) -> None:
        self.kernel = Kernel()
        self.path = folder / "journal"
        self.router = LinuxRouter(self.kernel, "mesh0", Journal(self.path), folder)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "_ipv6_usable", lambda _: True)
    return World(tmp_path)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EAFNOSUPPORT])
def test_router_kernel_without_ipv6_rules_gets_ipv4(
    world: World, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """RT-12."""
    world.kernel.refuse = dict.fromkeys(policy_rules(nl.AF_INET6), number)
    world.router.apply(CONFIG)
    assert world.kernel.held == policy_rules(nl.AF_INET)
    assert world.router.restore() == 2
    world.router.change(RouteChange((ip_network("fd7a:115c:a1e0::3/128"),), (), ()))
    world.router.apply(RouterConfig())
    world.router.apply(CONFIG)
    assert {family for _, family in world.kernel.added} == {nl.AF_INET}
    assert {kind for kind, _ in world.kernel.added} == {"rule", "address", "route"}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["ipv6_rules_unsupported"]
    world.router.close()
    assert world.kernel.held == []
    assert not world.path.exists()


def test_router_kernel_without_ipv6_rules_is_known_when_ipv6_is_switched_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RT-12, RT-14."""
    world.kernel.refuse = dict.fromkeys(policy_rules(nl.AF_INET6), errno.EAFNOSUPPORT)
    monkeypatch.setattr(module, "_ipv6_usable", lambda _: False)
    world.router.apply(CONFIG)
    monkeypatch.setattr(module, "_ipv6_usable", lambda _: True)
    assert world.router.restore() == 2, "the address and the route of IPv4"
    assert {family for _, family in world.kernel.added} == {nl.AF_INET}


@pytest.mark.parametrize("again", [True, False])
def test_router_rules_that_were_refused_are_tried_again_and_leave_nothing(world: World, *, again: bool) -> None:
    """RT-12."""
    world.kernel.refuse = {policy_rules(nl.AF_INET)[-1]: errno.ENOMEM}
    with pytest.raises(MeshdError, match="cannot add the policy rule 5270 on mesh0"):
        world.router.apply(CONFIG)
    assert world.kernel.held
    world.kernel.refuse = {}
    if again:
        world.router.apply(CONFIG)
        assert set(world.kernel.held) == {*policy_rules(nl.AF_INET), *policy_rules(nl.AF_INET6)}
    world.router.close()
    assert world.kernel.held == []
    assert not world.path.exists()


def test_router_new_routes_are_there_before_others_go(world: World) -> None:
    """One route for many, or many for one: packets find a way all the time."""
    wide = ip_network("100.64.0.0/10")
    world.router.apply(CONFIG)
    world.kernel.routing.clear()
    world.router.apply(RouterConfig(OWN, frozenset({wide})))
    assert world.kernel.routing == [nl.RTM_NEWROUTE, nl.RTM_DELROUTE, nl.RTM_DELROUTE]
    world.kernel.routing.clear()
    world.router.change(RouteChange(tuple(PEERS), (), (wide,)))
    assert world.kernel.routing == [nl.RTM_NEWROUTE, nl.RTM_NEWROUTE, nl.RTM_DELROUTE]


def test_router_says_of_an_interface_that_is_down_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-14: somebody set it down; no right of ours is missing."""
    world.router.apply(CONFIG)
    refused = {errno.ENETDOWN: "ip link set mesh0 up", errno.EPERM: "CAP_NET_ADMIN", errno.ENOMEM: None}
    for number, hint in refused.items():
        monkeypatch.setattr(world.kernel, "_one", lambda _, n=number: n)
        with pytest.raises(MeshdError) as caught:
            world.router.restore()
        assert (hint or "") in (caught.value.hint or "")
        assert bool(caught.value.hint) == bool(hint)


@pytest.mark.parametrize("base", [5200, 1300])
def test_clean_up_without_a_journal_takes_rules_that_lead_to_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, base: int
) -> None:
    """RT-12: of a daemon that kept no state. Where there are routes, another one may be running."""
    others = [nl.Rule(nl.AF_INET, 5270, nl.FR_ACT_TO_TBL, 77), nl.Rule(nl.AF_INET6, 5210, nl.FR_ACT_TO_TBL, 254)]
    ours = [*policy_rules(nl.AF_INET, base), *policy_rules(nl.AF_INET6, base)]
    left = nl.Route(nl.AF_INET, TABLE, (ip_network("10.0.0.0/8").network_address, 8), 0, nl.RTN_THROW)
    used = nl.Route(nl.AF_INET, TABLE, (ip_network("100.64.0.2/32").network_address, 32), 3, nl.RTN_UNICAST)
    for routes, kept in (([left, used], [*ours, *others]), ([left], others)):
        world.kernel.held = [*ours, *others]
        monkeypatch.setattr(world.kernel, "routes", lambda _, routes=routes: routes)
        journal = Journal(None)
        note_unused(world.kernel, journal)  # type: ignore[arg-type]
        clean_up(world.kernel, journal)  # type: ignore[arg-type]
        assert world.kernel.held == kept


def test_router_interface_with_another_name_is_the_one_to_clean_up(world: World) -> None:
    """RT-12: what stays on an interface that an administrator made is found by its name."""
    world.router.rename("mesh8")
    assert not world.path.exists()
    world.router.apply(CONFIG)
    world.router.rename("mesh9")
    assert Journal(world.path).interface == "mesh9"
    assert len(Journal(world.path).rules) == 8
