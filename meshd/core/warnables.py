"""Every problem that a node can tell its user: code, title, severity, words, and what it depends on.

Codes, titles, severities, delays and dependencies are those that existing clients know, where they know the problem.
Values of an ``Args`` are texts: ``error``, ``duration``, ``derp-region-id`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Args = Mapping[str, str]

CURRENT_VERSION, AVAILABLE_VERSION = "current-version", "available-version"
DURATION, ERROR, SERVER_NAME = "duration", "error", "server-name"
REGION_ID, REGION_NAME = "derp-region-id", "derp-region-name"
LEGACY_ERROR = "LegacyError"
"""The argument of the subsystems that only ever say what went wrong."""

WARMING_UP = "warming-up"
WARMING_UP_S = 5.0  # s after the node was switched on; clients show nothing else meanwhile


class Warnable(NamedTuple):
    """What is known of a problem before it happens."""

    title: str
    text: str | Callable[[Args], str] = ""
    """Words for the user; ``""``: the argument ``error`` as it is."""
    severity: str = "medium"
    impacts_connectivity: bool = False
    delay_s: float = 0.0
    """How long the problem must last until it is told."""
    depends_on: tuple[str, ...] = ()
    """With one of these present, this problem is its consequence and not told."""
    argument: str = ERROR
    """Where the words are, when ``text`` is empty."""

    def words(self, args: Args) -> str:
        if callable(self.text):
            return self.text(args)
        return self.text or args.get(self.argument, "")


def _login_state(args: Args) -> str:
    error = args.get(ERROR)
    return f"You are logged out. The last login error was: {error}" if error else "You are logged out."


def _update(kind: str) -> Callable[[Args], str]:
    return lambda args: f"{kind} from version {args[CURRENT_VERSION]} to {args[AVAILABLE_VERSION]} is available."


def _no_relay(args: Args) -> str:
    which = (
        f"the '{args[REGION_NAME]}' relay server"
        if args.get(REGION_NAME)
        else f"the relay server with ID '{args.get(REGION_ID, '')}'"
    )
    return (
        f"Tailscale could not connect to {which}. "
        "Your Internet connection might be down, or the server might be temporarily unavailable."
    )


def _silent_relay(args: Args) -> str:
    which = (
        f"the '{args[REGION_NAME]}' relay server"
        if args.get(REGION_NAME)
        else f"the home relay server (region ID '{args.get(REGION_ID, '')}')"
    )
    return (
        f"Tailscale hasn't heard from {which} in {args[DURATION]}. "
        "The server might be temporarily unavailable, or your Internet connection might be down."
    )


_OFF, _NETWORK = "wantrunning-false", "network-status"

WARNABLES: dict[str, Warnable] = {
    "update-available": Warnable("Update available", _update("An update"), "low"),
    "security-update-available": Warnable("Security update available", _update("A security update")),
    _NETWORK: Warnable(
        "Network down",
        "Tailscale cannot connect because the network is down. Check your Internet connection.",
        impacts_connectivity=True,
        delay_s=5.0,
    ),
    _OFF: Warnable("Tailscale off", "Tailscale is stopped.", "low"),
    "login-state": Warnable("Logged out", _login_state, depends_on=(_OFF,)),
    "not-in-map-poll": Warnable(
        "Out of sync",
        "Unable to connect to the Tailscale coordination server to synchronize the state of your tailnet. "
        "Peer reachability might degrade over time.",
        delay_s=8 * 60.0,  # as long as maintenance of a coordination server may take
        depends_on=(_NETWORK, _OFF),
    ),
    "mapresponse-timeout": Warnable(
        "Network map response timeout",
        lambda args: (
            f"Tailscale hasn't received a network map from the coordination server in {args.get(DURATION, '')}."
        ),
        depends_on=(_NETWORK, _OFF),
    ),
    "no-derp-home": Warnable(
        "No home relay server",
        "Tailscale could not connect to any relay server. Check your Internet connection.",
        impacts_connectivity=True,
        delay_s=10.0,
        depends_on=(_NETWORK,),
    ),
    "no-derp-connection": Warnable(
        "Relay server unavailable",
        _no_relay,
        impacts_connectivity=True,
        delay_s=10.0,
        depends_on=(_NETWORK, "no-derp-home"),
    ),
    "derp-timed-out": Warnable(
        "Relay server timed out", _silent_relay, depends_on=(_NETWORK, "no-derp-connection", "no-derp-home")
    ),
    "derp-region-error": Warnable(
        "Relay server error",
        lambda args: f"The relay server #{args.get(REGION_ID, '')} is reporting an issue: {args.get(ERROR, '')}",
        "low",
        depends_on=(_NETWORK,),
    ),
    "no-udp4-bind": Warnable(
        "NAT traversal setup failure",
        "Tailscale couldn't listen for incoming UDP connections.",
        impacts_connectivity=True,
        depends_on=(_NETWORK, _OFF),
    ),
    "dns-forward-failing": Warnable(
        "DNS unavailable",
        lambda args: (
            f"meshd can't reach the configured DNS servers ({args.get(ERROR, '')}). "
            "Internet connectivity may be affected."
        ),
        impacts_connectivity=True,
        delay_s=15.0,
        depends_on=(_NETWORK,),
    ),
    "tls-connection-failed": Warnable(
        "Encrypted connection failed",
        lambda args: (
            f"Tailscale could not establish an encrypted connection with "
            f"'\"{args.get(SERVER_NAME, '')}\"': {args.get(ERROR, '')}"
        ),
        depends_on=(_NETWORK,),
    ),
    "local-log-config-error": Warnable(
        "Local log misconfiguration", lambda args: f"The local log is misconfigured: {args.get(ERROR, '')}", "low"
    ),
    "apply-disk-config": Warnable(
        "Could not apply configuration",
        lambda args: (
            "An error occurred applying the Tailscale envknob configuration stored on disk: " + args.get(ERROR, "")
        ),
    ),
    WARMING_UP: Warnable("Tailscale is starting", "Tailscale is starting. Please wait.", "low"),
    "test-warnable": Warnable("Test warnable", "", "low"),
    "router": Warnable("Routes could not be set", argument=LEGACY_ERROR, impacts_connectivity=True),
    "dns-read-os-config-failed": Warnable(
        "Failed to read system DNS configuration",
        lambda args: f"Tailscale failed to fetch the DNS configuration of your device: {args.get(ERROR, '')}",
        "low",
        depends_on=(_NETWORK,),
    ),
    "dns-set-os-config-failed": Warnable(
        "Failed to set system DNS configuration",
        lambda args: f"Tailscale failed to set the DNS configuration of your device: {args.get(ERROR, '')}",
        depends_on=(_NETWORK,),
    ),
    "dns-manager": Warnable("DNS manager issue"),
    "resolv-conf-overwritten": Warnable(
        "Linux DNS configuration issue",
        "Linux DNS config not ideal. /etc/resolv.conf overwritten. See https://tailscale.com/s/dns-fight",
    ),
    "exit-node-misconfiguration": Warnable("Exit node misconfiguration"),
    "docker-stateful-filtering": Warnable("Docker with stateful filtering"),
    "ip-forwarding-off": Warnable("IP forwarding is off", impacts_connectivity=True),
    "nosnat-with-advertised-exit-node": Warnable("Exit node advertising may not work correctly"),
    "posture-checking-serial-collection-failed": Warnable(
        "Device Posture: serial number collection failed",
        lambda args: f"The serial number of this machine could not be read: {args.get(ERROR, '')}",
    ),
    "policy-file": Warnable("System policy could not be applied"),
    "state-store-health": Warnable(
        "Tailscale state store failed to initialize", severity="high", impacts_connectivity=True
    ),
    "invalid-packet-filter": Warnable(
        "Invalid packet filter",
        "The coordination server sent an invalid packet filter permitting traffic to unlocked nodes; "
        "rejecting all packets for safety",
        "high",
    ),
    "sync-disabled": Warnable(
        "Tailscale Sync is Disabled",
        "Tailscale control plane syncing is disabled; run `tailscale set --sync` to restore",
        "high",
    ),
    # what only this program knows
    "control": Warnable("Coordination server unreachable", depends_on=(_NETWORK,)),
    "refused-peers": Warnable("Peers refused"),
    "firewall": Warnable("Packet filter rules could not be set"),
    "host": Warnable("Host configuration issue"),
    "start": Warnable("Could not start", severity="high", impacts_connectivity=True),
}


def warnable(code: str) -> Warnable:
    """What is known of a problem; one that nobody listed is told by its code."""
    return WARNABLES.get(code) or Warnable(code.replace("-", " "))


def go_duration(seconds: float) -> str:
    """Whole seconds as Go prints a duration: ``2m5s``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
