"""Switches that the network turns on a node, by the names under which clients show them."""

from __future__ import annotations

from meshd.core.netmap import Netmap

KNOBS = {
    "DisableUPnP": "debug-disable-upnp",
    "KeepFullWGConfig": "debug-no-wg-trim",
    "RandomizeClientPort": "randomize-client-port",
    "ForceBackgroundSTUN": "debug-always-stun",
    "DisableDeltaUpdates": "disable-delta-updates",
    "PeerMTUEnable": "peer-mtu-enable",
    "DisableDNSForwarderTCPRetries": "dns-forwarder-disable-tcp-retries",
    "SilentDisco": "silent-disco",
    "ProbeUDPLifetime": "probe-udp-lifetime",
    "AppCStoreRoutes": "store-appc-routes",
    "UserDialUseRoutes": "user-dial-routes",
    "DisableSplitDNSWhenNoCustomResolvers": "disable-split-dns-when-no-custom-resolvers",
    "DisableLocalDNSOverrideViaNRPT": "disable-local-dns-override-via-nrpt",
    "DisableCaptivePortalDetection": "disable-captive-portal-detection",
    "DisableSkipStatusQueue": "disable-skip-status-queue",
    "DisableHostsFileUpdates": "disable-hosts-file-updates",
    "ForceRegisterMagicDNSIPv4Only": "force-register-magicdns-ipv4-only",
    "EmitRuntimeMetrics": "emit-runtime-metrics",
    "DisableUDPGRO": "disable-udp-gro",
    "DisableUDPGSO": "disable-udp-gso",
    "DisableTUNUDPGRO": "disable-tun-udp-gro",
    "DisableTUNTCPGRO": "disable-tun-tcp-gro",
    "NeverGSOEqualTail": "never-gso-equal-tail",
    "CacheNetworkMaps": "cache-network-maps",
    "ScopeQuad100OnMacOS": "scope-quad100-macos",
}


def control_knobs(netmap: Netmap | None) -> dict[str, bool | None]:
    """What the network asks of us. ``OneCGNAT`` is None when it leaves that to us."""
    asked = netmap.self_node.cap_map if netmap is not None else {}
    knobs: dict[str, bool | None] = {name: attribute in asked for name, attribute in KNOBS.items()}
    knobs["OneCGNAT"] = True if "one-cgnat?v=true" in asked else False if "one-cgnat?v=false" in asked else None
    knobs["LinuxForceIPTables"] = "linux-netfilter?v=iptables" in asked
    knobs["LinuxForceNfTables"] = "linux-netfilter?v=nftables" in asked
    return knobs
