"""What a node tells about its network and its machine."""

from __future__ import annotations

import asyncio
import json
import re
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
from meshd.node import debugactions
from meshd.node.authority import Authority
from meshd.node.bugreport import BugReport
from meshd.node.debugactions import DebugActions
from meshd.node.inspection import Inspection
from meshd.node.nodejson import node_json
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
            netmap=netmap,
            prefs=prefs or Prefs(),
            node_private=None,
            bus=SimpleNamespace(send=self.sent.append),
            authority=Authority(),
            profiles=SimpleNamespace(current=SimpleNamespace(id="p1")),
        )
        paths: Any = SimpleNamespace(
            recent_latency={},
            home_relay=1,
            path_changes=lambda key: self.changes,
            rebind=lambda: None,
            restun=lambda: None,
            break_relays=lambda: None,
            relays=SimpleNamespace(regions={1: None, 2: None}),
            prefer_relay=self.sent.append,
            set_homeless=self.sent.append,
            move_home=lambda: self.sent.append("moved"),
            relay_code=lambda region: f"r{region}",
            live_relays=1,
            endpoints=[],
        )
        host: Any = SimpleNamespace(
            uid_of={"ann": 1000}.get,
            forwarding_problem=lambda routes: f"{len(routes)} routes",
            udp_gro_problem=lambda: "slow",
            marks_sockets=lambda: True,
        )
        resolver: Any = SimpleNamespace()
        self.inspection = Inspection(self.backend, paths, self.clock, host, resolver)
        self.paths = paths
        self.host = host
        shown = {"Peers": []} if netmap is not None else None

        async def shown_netmap() -> dict[str, Any] | None:
            return shown

        self.actions = DebugActions(self.backend, paths, shown_netmap, "/var/lib/meshd")


KNOB_ATTRIBUTES = {
    "debug-disable-upnp": "DisableUPnP",
    "debug-no-wg-trim": "KeepFullWGConfig",
    "randomize-client-port": "RandomizeClientPort",
    "debug-always-stun": "ForceBackgroundSTUN",
    "disable-delta-updates": "DisableDeltaUpdates",
    "peer-mtu-enable": "PeerMTUEnable",
    "dns-forwarder-disable-tcp-retries": "DisableDNSForwarderTCPRetries",
    "silent-disco": "SilentDisco",
    "one-cgnat?v=true": "OneCGNAT",
    "one-cgnat?v=false": "OneCGNAT",
    "linux-netfilter?v=iptables": "LinuxForceIPTables",
    "linux-netfilter?v=nftables": "LinuxForceNfTables",
    "probe-udp-lifetime": "ProbeUDPLifetime",
    "store-appc-routes": "AppCStoreRoutes",
    "user-dial-routes": "UserDialUseRoutes",
    "disable-split-dns-when-no-custom-resolvers": "DisableSplitDNSWhenNoCustomResolvers",
    "disable-local-dns-override-via-nrpt": "DisableLocalDNSOverrideViaNRPT",
    "disable-captive-portal-detection": "DisableCaptivePortalDetection",
    "disable-skip-status-queue": "DisableSkipStatusQueue",
    "disable-hosts-file-updates": "DisableHostsFileUpdates",
    "force-register-magicdns-ipv4-only": "ForceRegisterMagicDNSIPv4Only",
    "emit-runtime-metrics": "EmitRuntimeMetrics",
    "disable-udp-gro": "DisableUDPGRO",
    "disable-udp-gso": "DisableUDPGSO",
    "disable-tun-udp-gro": "DisableTUNUDPGRO",
    "disable-tun-tcp-gro": "DisableTUNTCPGRO",
    "never-gso-equal-tail": "NeverGSOEqualTail",
    "cache-network-maps": "CacheNetworkMaps",
    "scope-quad100-macos": "ScopeQuad100OnMacOS",
}

KEPT_ATTRIBUTES = """
https://tailscale.com/cap/file-sharing https://tailscale.com/cap/is-admin https://tailscale.com/cap/is-owner
https://tailscale.com/cap/ssh https://tailscale.com/cap/ssh-rule-in https://tailscale.com/cap/debug https
https://tailscale.com/cap/tailnet-lock https://tailscale.com/cap/warn-funnel-no-invite
https://tailscale.com/cap/warn-funnel-no-https https://tailscale.com/cap/debug-ts-dns-resolution
https://tailscale.com/cap/bind-to-interface-by-route
https://tailscale.com/cap/debug-disable-alternate-default-route-interface
https://tailscale.com/cap/debug-disable-bind-conn-to-interface
https://tailscale.com/cap/funnel-ports?ports=443,8443,10000 funnel ssh-aggregator debug-disable-subnets-if-pac
seamless-key-renewal drive:share drive:access disable-web-client log-exit-flows auto-exit-node suggest-exit-node-ui
https://tailscale.com/cap/mac-ui-v2 https://tailscale.com/cap/services-in-desktop-clients ssh-behavior-v1
ssh-behavior-v2 ssh-env-vars disable-magicsock-crypto-routing tailscale.com/app-connectors service-host
tailnet.maxKeyDuration native-ipv4 disable-relay-server disable-relay-client
client-side-reachability-routecheck of-the-future
"""


def world(*peers: dict[str, Any], **fields: Any) -> World:
    session = joined(*peers, **{"Domain": "x"})
    if fields:
        send(session, **fields)
    return World(session.netmap)


def test_inspection_without_netmap_says_so() -> None:
    """NM-04."""
    inspection = World(None).inspection
    assert not inspection.has_netmap()
    assert not inspection.has_capability("drive:share")
    assert inspection.packet_filter_rules() is None
    assert inspection.packet_filter_matches() is None
    assert inspection.cert_domains() is None
    for question in (inspection.dns_config, inspection.services, inspection.suggest_exit_node):
        with pytest.raises(MeshdError):
            question()


def exit_world(prefs: Prefs) -> World:
    derp = {"Regions": {str(n): {"RegionID": n, "RegionCode": "r", "Nodes": []} for n in (1, 2)}}
    everything = ["0.0.0.0/0", "::/0"]
    peers = [
        node(number, CapMap={"suggest-exit-node": None}, Online=True, HomeDERP=home, AllowedIPs=everything)
        for number, home in ((2, 1), (3, 2), (4, 2))
    ]
    return World(joined(*peers, DERPMap=derp).netmap, prefs)


def test_inspection_suggestion_stays_while_its_region_is_not_measured() -> None:
    """EX-05: not every check measures every region."""
    made = exit_world(Prefs())
    made.paths.recent_latency = {1: 0.05, 2: 0.01}
    chosen = made.inspection.suggest_exit_node()["ID"]
    assert chosen in ("s3", "s4")
    made.paths.recent_latency = {}
    assert {made.inspection.suggest_exit_node()["ID"] for _ in range(20)} == {chosen}


def test_inspection_suggestion_is_forgotten_with_its_profile() -> None:
    """EX-05, PS-13: a node of one network is no exit node of another."""
    made = exit_world(Prefs(auto_exit_node="any"))
    chosen = made.inspection._suggested_id()
    made.backend.netmap = None
    assert made.inspection._suggested_id() == chosen  # there can be none for a moment
    made.backend.profiles.current.id = "p2"
    assert made.inspection._suggested_id() == ""


def test_inspection_automatic_exit_node_outlives_the_process() -> None:
    """EX-10: nothing is measured yet, and the one that is in use is as good as any."""
    for used in ("s2", "s3", "s4"):
        made = exit_world(Prefs(exit_node_id=used, auto_exit_node="any"))
        assert made.inspection._suggested_id() == used


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
    """TL-04, api:tka/status, status:NetworkLockStatus: enabled is false, the keys are ours."""
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
    assert made.inspection.check_ip_forwarding() == "2 routes"
    assert made.inspection.check_udp_gro() == "slow"
    assert made.inspection.is_operator(1000)
    assert not made.inspection.is_operator(0)


def _no_procfs() -> int:
    raise FileNotFoundError(2, "No such file or directory")


def test_debug_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """DB-02."""
    monkeypatch.setattr(debugactions, "break_connections", _no_procfs)
    made = world(node(2, DiscoKey="discokey:" + "11" * 32), Node=own(CapMap={"debug-disable-upnp": []}))
    assert made.actions.run("rebind", b"") is None
    assert made.actions.run("peer-disco-keys", b"") == {node(2)["Key"]: "discokey:" + "11" * 32}
    assert asyncio.run(made.actions.run("current-netmap", b"")) == {"Peers": []}
    knobs = made.actions.run("control-knobs", b"")
    assert (knobs["DisableUPnP"], knobs["SilentDisco"], knobs["OneCGNAT"]) == (True, False, None)
    made.actions.run("notify", b'{"ErrMessage":"hello"}')
    assert made.sent == [{"ErrMessage": "hello"}]
    for action, code in (("break-tcp-conns", "unsupported"), ("nonsense", "not_found"), ("notify", "invalid")):
        with pytest.raises(MeshdError) as caught:
            made.actions.run(action, b"x")
        assert caught.value.code == code
    with pytest.raises(MeshdError, match="no netmap"):
        asyncio.run(World(None).actions.run("current-netmap", b""))


@pytest.mark.parametrize(
    "told",
    [
        {"Health": 7},
        {"Health": {"Warnings": []}},
        {"Health": {"Warnings": {"a": "b"}}},
        {"Health": {"Warnings": {"a": {"PrimaryAction": "b"}}}},
        {"BrowseToURL": ["a"]},
    ],
)
def test_debug_notification_that_is_none_reaches_nobody(told: dict[str, Any]) -> None:
    """DB-02: what the bus reads of it must be what it says; null is nothing."""
    made = world()
    with pytest.raises(MeshdError) as caught:
        made.actions.run("notify", json.dumps(told).encode())
    assert caught.value.code == "invalid"
    assert made.sent == []
    for fine in ({"Health": None}, {"Health": {"Warnings": {"a": {"PrimaryAction": None}}}}, {"State": 6}):
        made.actions.run("notify", json.dumps(fine).encode())
        assert made.sent.pop() == fine


def test_debug_actions_about_relays_and_files() -> None:
    """DB-02, DB-05: where the node keeps its files is told as well."""
    made = world(node(2))
    assert made.actions.run("statedir", b"") == "/var/lib/meshd"
    for action in ("derp-set-homeless", "derp-unset-homeless", "pick-new-derp"):
        assert made.actions.run(action, b"") is None
    made.actions.run("force-prefer-derp", b"2")
    made.actions.run("force-prefer-derp", b"0")
    assert made.sent == [True, False, "moved", 2, 0]
    for body in (b"7", b'"x"', b""):
        with pytest.raises(MeshdError) as caught:
            made.actions.run("force-prefer-derp", body)
        assert caught.value.code == "invalid"


def test_debug_actions_forget_a_key_and_a_map() -> None:
    """api:debug, rotate-disco-key, clear-netmap-cache: control hears of the new key; the file goes."""
    made = world(node(2))
    done: list[str] = []
    made.paths.rotate_disco = lambda: done.append("rotated")
    made.backend.disco_key_changed = lambda: done.append("told")
    made.backend.clear_netmap_cache = lambda: done.append("cleared")
    assert made.actions.run("rotate-disco-key", b"") is None
    assert made.actions.run("clear-netmap-cache", b"") is None
    assert done == ["rotated", "told", "cleared"]


def test_debug_control_knobs_has_every_switch_that_clients_know() -> None:
    """DB-02, section of attributes: each is the wish of the attribute in KNOB_ATTRIBUTES."""
    for attribute, knob in KNOB_ATTRIBUTES.items():
        shown = world(node(2), Node=own(CapMap={attribute: []})).actions.run("control-knobs", b"")
        wished = {name for name, value in shown.items() if value is not None and value is not False}
        assert wished == ({knob} if attribute != "one-cgnat?v=false" else set()), attribute
        assert shown["OneCGNAT"] is {"one-cgnat?v=true": True, "one-cgnat?v=false": False}.get(attribute)
    knobs = world(node(2), Node=own(CapMap={"disable-udp-gso": [], "one-cgnat?v=true": []})).actions.run(
        "control-knobs", b""
    )
    assert (knobs["DisableUDPGSO"], knobs["OneCGNAT"], knobs["CacheNetworkMaps"]) == (True, True, False)
    assert len(knobs) == 28


def test_bug_report_marks_the_log_and_says_how_the_node_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DB-06."""
    monkeypatch.delenv("TS_NO_LOGS_NO_SUPPORT", raising=False)
    monkeypatch.setenv("TS_AUTHKEY", "tskey-secret")
    made = world(node(2))
    made.backend.health = SimpleNamespace(texts=lambda: ["relay gone"])
    made.backend.state = SimpleNamespace(label="Running")
    made.backend.version = "1"
    report = BugReport(made.backend, made.paths, made.clock, made.host)
    with caplog.at_level("INFO"):
        marker = report.mark("it hangs")
        report.diagnose()
    assert re.fullmatch(r"BUG-[0-9a-f]{64}-\d{14}Z-[0-9a-f]{16}", marker)
    facts = [vars(r).get("meshd_fields") or vars(r) for r in caplog.records]
    text = str(facts)
    assert marker in text
    assert "it hangs" in text
    assert "relay gone" in text
    assert "udp-gro-forwarding" in text
    assert "tskey-secret" not in text
    for _ in range(9):
        report.mark("")
    with pytest.raises(MeshdError, match="too many"):
        report.mark("")
    made.clock.advance(60)
    monkeypatch.setenv("TS_NO_LOGS_NO_SUPPORT", "true")
    assert report.mark("") == "BUG-NO-LOGS-NO-SUPPORT-this-node-has-had-its-logging-disabled"


def test_attributes_without_effect_on_this_node_are_kept_and_shown() -> None:
    """Those of KEPT_ATTRIBUTES: in the self node that programs read, with their values."""
    names = KEPT_ATTRIBUTES.split()
    made = world(node(2), Node=own(CapMap={name: ["value"] for name in names}))
    own_node = made.backend.netmap.self_node
    shown = node_json(own_node, "")
    for name in names:
        assert made.inspection.has_capability(name)
        assert list(shown["CapMap"][name]) == ["value"]
    assert not made.inspection.has_capability("another")
    knobs = made.actions.run("control-knobs", b"")
    assert not any(knobs.values())
