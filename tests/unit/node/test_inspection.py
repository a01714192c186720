"""What a node tells about its network and its machine."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.keys import LockPrivate, NodePrivate
from meshd.core.candidate import Quality
from meshd.core.netmap import Netmap
from meshd.core.path import PathChange
from meshd.core.prefs import Persist, Prefs
from meshd.node.debugactions import DebugActions
from meshd.node.inspection import Inspection
from meshd.testing.clock import FakeClock
from tests.unit.core.mapworld import joined, node, own, send

NODE, LOCK = NodePrivate.generate(), LockPrivate.generate()


class World:
    """A backend, paths and a host that only answer."""

    def __init__(self, netmap: Netmap | None, prefs: Prefs | None = None) -> None:
        self.clock = FakeClock()
        self.changes: list[PathChange] = []
        self.sent: list[Any] = []
        self.backend: Any = SimpleNamespace(
            netmap=netmap, prefs=prefs or Prefs(), node_private=None, bus=SimpleNamespace(send=self.sent.append)
        )
        paths: Any = SimpleNamespace(
            last_report=None,
            home_relay=1,
            path_changes=lambda key: self.changes,
            rebind=lambda: None,
            restun=lambda: None,
            break_relays=lambda: None,
        )
        host: Any = SimpleNamespace(
            uid_of={"ann": 1000}.get,
            forwarding_problem=lambda routes: f"{len(routes)} routes",
            udp_gro_problem=lambda: "slow",
            marks_sockets=lambda: True,
        )
        self.inspection = Inspection(self.backend, paths, self.clock, host)
        self.actions = DebugActions(self.backend, paths, lambda: {"Peers": []} if netmap is not None else None)


def world(*peers: dict[str, Any], **fields: Any) -> World:
    session = joined(*peers, **{"Domain": "x"})
    if fields:
        send(session, **fields)
    return World(session.netmap)


def test_inspection_without_netmap_says_so() -> None:
    inspection = World(None).inspection
    assert not inspection.has_netmap()
    assert not inspection.has_capability("drive:share")
    assert inspection.packet_filter_rules() is None
    assert inspection.packet_filter_matches() is None
    assert inspection.cert_domains() is None
    for question in (inspection.dns_config, inspection.services, inspection.suggest_exit_node):
        with pytest.raises(MeshdError):
            question()


def test_inspection_dns_config_is_as_the_network_sent_it() -> None:
    """LA dns-config: a suffix without resolvers keeps its empty list."""
    config = {"Routes": {"a.test": [], "b.test": [{"Addr": "10.0.0.1"}]}, "Domains": ["m.test"], "Proxied": True}
    made = world(DNSConfig=config | {"CertDomains": ["z.test", "a.test"]})
    assert made.inspection.dns_config() == config | {"CertDomains": ["z.test", "a.test"]}
    assert made.inspection.cert_domains() == ["a.test", "z.test"]


def test_inspection_services_come_from_our_capabilities() -> None:
    service = {"Name": "svc:web", "Addrs": ["100.100.0.1"]}
    made = world(Node=own(CapMap={"services/web": [service], "other": [1]}))
    assert made.inspection.services() == {"svc:web": service}
    assert made.inspection.has_capability("other")


def test_inspection_lock_status_before_and_after_login() -> None:
    """TL-04: enabled is false, the keys are ours."""
    made = World(None)
    status = made.inspection.lock_status()
    assert (status["Enabled"], status["NodeKey"], status["PublicKey"]) == (False, None, "nlpub:" + "00" * 32)
    persist = Persist(private_node_key=NODE.text(), network_lock_key=LOCK.text())
    made.backend.prefs = msgspec.structs.replace(Prefs(), config=persist)
    made.backend.node_private = NODE
    status = made.inspection.lock_status()
    assert status["NodeKey"] == NODE.public().text()
    assert status["PublicKey"] == LOCK.public().text()


def test_inspection_path_changes_in_wall_time_with_addresses() -> None:
    """DB-04."""
    made = world(node(2))
    address = AddrPort.parse("192.0.2.1:5")
    best = Quality(address, 0.1)
    made.changes = [
        PathChange(made.clock.monotonic(), "first", None, best),
        PathChange(made.clock.monotonic(), "relay", 0, 900),
        PathChange(made.clock.monotonic(), "endpoints", None, (address,)),
        PathChange(made.clock.monotonic(), "gone", best, None),
    ]
    told = made.inspection.path_changes(ip_address("100.64.0.2"))
    assert [(line.get("From"), line.get("To")) for line in told] == [
        ("", "192.0.2.1:5"),
        ("", "127.3.3.40:900"),
        (None, ["192.0.2.1:5"]),
        ("192.0.2.1:5", None),
    ]
    assert all(line["When"].endswith("Z") for line in told)
    with pytest.raises(MeshdError, match="is local Tailscale IP"):
        made.inspection.path_changes(ip_address("100.64.0.1"))
    with pytest.raises(MeshdError, match="no matching peer"):
        made.inspection.path_changes(ip_address("100.99.99.99"))


def test_inspection_filter_matches_know_who_holds_a_capability() -> None:
    rules = [{"SrcIPs": ["cap:web"], "DstPorts": [{"IP": "100.64.0.1", "Ports": {"First": 1, "Last": 2}}]}]
    made = world(node(2, CapMap={"web": []}), node(3), PacketFilter=rules)
    (match,) = made.inspection.packet_filter_matches() or ()
    assert match["SrcCaps"] == ["web"]
    assert match["Srcs"] == ["100.64.0.2/32", "fd7a:115c:a1e0:ab12::2/128"]


def test_inspection_host_questions_go_to_the_host() -> None:
    made = world()
    made.backend.prefs = Prefs(advertise_routes=("10.0.0.0/8",), operator_user="ann")
    assert made.inspection.check_ip_forwarding() == "1 routes"
    assert made.inspection.check_udp_gro() == "slow"
    assert made.inspection.is_operator(1000)
    assert not made.inspection.is_operator(0)


def test_debug_actions() -> None:
    """DB-02."""
    made = world(node(2, DiscoKey="discokey:" + "11" * 32), Node=own(CapMap={"debug-disable-upnp": []}))
    assert made.actions.run("rebind", b"") is None
    assert made.actions.run("peer-disco-keys", b"") == {node(2)["Key"]: "discokey:" + "11" * 32}
    assert made.actions.run("current-netmap", b"") == {"Peers": []}
    knobs = made.actions.run("control-knobs", b"")
    assert (knobs["DisableUPnP"], knobs["SilentDisco"], knobs["OneCGNAT"]) == (True, False, None)
    made.actions.run("notify", b'{"ErrMessage":"hello"}')
    assert made.sent == [{"ErrMessage": "hello"}]
    for action, code in (("break-tcp-conns", "unsupported"), ("nonsense", "not_found"), ("notify", "invalid")):
        with pytest.raises(MeshdError) as caught:
            made.actions.run(action, b"x")
        assert caught.value.code == code
    with pytest.raises(MeshdError, match="no netmap"):
        World(None).actions.run("current-netmap", b"")
