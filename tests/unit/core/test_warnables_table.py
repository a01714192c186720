"""Every problem by its code: what clients know of it, and its words."""

from __future__ import annotations

import pytest

from meshd.core.warnables import WARNABLES, warnable

ARGS = {
    "current-version": "1",
    "available-version": "2",
    "duration": "2m6s",
    "error": "E",
    "LegacyError": "E",
    "server-name": "derp.example",
    "derp-region-id": "7",
    "derp-region-name": "Here",
}
OFF, NET, HOME, RELAY = "wantrunning-false", "network-status", "no-derp-home", "no-derp-connection"

TABLE: dict[str, tuple[str, str, bool, float, tuple[str, ...], str]] = {
    "update-available": ("Update available", "low", False, 0, (), "An update from version 1 to 2 is available."),
    "security-update-available": (
        "Security update available",
        "medium",
        False,
        0,
        (),
        "A security update from version 1 to 2 is available.",
    ),
    "network-status": (
        "Network down",
        "medium",
        True,
        5,
        (),
        "Tailscale cannot connect because the network is down. Check your Internet connection.",
    ),
    "wantrunning-false": ("Tailscale off", "low", False, 0, (), "Tailscale is stopped."),
    "login-state": (
        "Logged out",
        "medium",
        False,
        0,
        (OFF,),
        "You are logged out. The last login error was: E",
    ),
    "not-in-map-poll": (
        "Out of sync",
        "medium",
        False,
        480,
        (NET, OFF),
        "Unable to connect to the Tailscale coordination server to synchronize the state of your tailnet. "
        "Peer reachability might degrade over time.",
    ),
    "mapresponse-timeout": (
        "Network map response timeout",
        "medium",
        False,
        0,
        (NET, OFF),
        "Tailscale hasn't received a network map from the coordination server in 2m6s.",
    ),
    "no-derp-home": (
        "No home relay server",
        "medium",
        True,
        10,
        (NET,),
        "Tailscale could not connect to any relay server. Check your Internet connection.",
    ),
    "no-derp-connection": (
        "Relay server unavailable",
        "medium",
        True,
        10,
        (NET, HOME),
        "Tailscale could not connect to the 'Here' relay server. Your Internet connection might be down, or the server "
        "might be temporarily unavailable.",
    ),
    "derp-timed-out": (
        "Relay server timed out",
        "medium",
        False,
        0,
        (NET, RELAY, HOME),
        "Tailscale hasn't heard from the 'Here' relay server in 2m6s. The server might be temporarily unavailable, or "
        "your Internet connection might be down.",
    ),
    "derp-region-error": (
        "Relay server error",
        "low",
        False,
        0,
        (NET,),
        "The relay server #7 is reporting an issue: E",
    ),
    "no-udp4-bind": (
        "NAT traversal setup failure",
        "medium",
        True,
        0,
        (NET, OFF),
        "Tailscale couldn't listen for incoming UDP connections.",
    ),
    "tls-connection-failed": (
        "Encrypted connection failed",
        "medium",
        False,
        0,
        (NET,),
        "Tailscale could not establish an encrypted connection with '\"derp.example\"': E",
    ),
    "local-log-config-error": (
        "Local log misconfiguration",
        "low",
        False,
        0,
        (),
        "The local log is misconfigured: E",
    ),
    "apply-disk-config": (
        "Could not apply configuration",
        "medium",
        False,
        0,
        (),
        "An error occurred applying the Tailscale envknob configuration stored on disk: E",
    ),
    "warming-up": ("Tailscale is starting", "low", False, 0, (), "Tailscale is starting. Please wait."),
    "test-warnable": ("Test warnable", "low", False, 0, (), "E"),
    "router": ("Routes could not be set", "medium", True, 0, (), "E"),
    "exit-node-misconfiguration": ("Exit node misconfiguration", "medium", False, 0, (), "E"),
    "docker-stateful-filtering": ("Docker with stateful filtering", "medium", False, 0, (), "E"),
    "ip-forwarding-off": ("IP forwarding is off", "medium", True, 0, (), "E"),
    "nosnat-with-advertised-exit-node": ("Exit node advertising may not work correctly", "medium", False, 0, (), "E"),
    "dns-read-os-config-failed": (
        "Failed to read system DNS configuration",
        "low",
        False,
        0,
        (NET,),
        "Tailscale failed to fetch the DNS configuration of your device: E",
    ),
    "dns-set-os-config-failed": (
        "Failed to set system DNS configuration",
        "medium",
        False,
        0,
        (NET,),
        "Tailscale failed to set the DNS configuration of your device: E",
    ),
    "dns-manager": ("DNS manager issue", "medium", False, 0, (), "E"),
    "dns-forward-failing": (
        "DNS unavailable",
        "medium",
        True,
        15,
        (NET,),
        "meshd can't reach the configured DNS servers (E). Internet connectivity may be affected.",
    ),
    "resolv-conf-overwritten": (
        "Linux DNS configuration issue",
        "medium",
        False,
        0,
        (),
        "Linux DNS config not ideal. /etc/resolv.conf overwritten. See https://tailscale.com/s/dns-fight",
    ),
    "posture-checking-serial-collection-failed": (
        "Device Posture: serial number collection failed",
        "medium",
        False,
        0,
        (),
        "The serial number of this machine could not be read: E",
    ),
    "state-store-health": ("Tailscale state store failed to initialize", "high", True, 0, (), "E"),
    "invalid-packet-filter": (
        "Invalid packet filter",
        "high",
        False,
        0,
        (),
        "The coordination server sent an invalid packet filter permitting traffic to unlocked nodes; rejecting all "
        "packets for safety",
    ),
    "sync-disabled": (
        "Tailscale Sync is Disabled",
        "high",
        False,
        0,
        (),
        "Tailscale control plane syncing is disabled; run `tailscale set --sync` to restore",
    ),
}
"""Code: title, severity, whether connections suffer, seconds until it shows, what it follows from, words."""

OUR_OWN = {"control", "refused-peers", "firewall", "host", "start", "policy-file"}


@pytest.mark.parametrize("code", TABLE)
def test_warnable_is_as_clients_know_it(code: str) -> None:
    """warn:dns-os; HE-01."""
    kind = warnable(code)
    title, severity, impacts, delay, depends_on, words = TABLE[code]
    assert (kind.title, kind.severity, kind.impacts_connectivity) == (title, severity, impacts)
    assert (kind.delay_s, kind.depends_on) == (delay, depends_on)
    assert kind.words(ARGS) == words


def test_warnables_of_the_table_are_all_there_are() -> None:
    assert WARNABLES.keys() == TABLE.keys() | OUR_OWN
