"""What the host's packet filter should do for us.

A pure decision; ``meshd.host.linux.netfilter`` carries it out.
"""

from __future__ import annotations

import msgspec

from meshd.base.addr import IPAddress
from meshd.base.ranges import is_via
from meshd.core.node import Node
from meshd.core.prefs import Prefs

OFF, NO_DIVERT, ON = 0, 1, 2  # NetfilterMode of the preferences

_CAP_KIND = "linux-netfilter?v="
_CAP_NO_CGNAT_DROP = "disable-linux-cgnat-drop-rule"


class FirewallConfig(msgspec.Struct, frozen=True):
    """``mode`` OFF leaves nothing behind. ``kind`` is "nftables", "iptables" or "" for whatever fits the host."""

    mode: int = OFF
    kind: str = ""
    own: tuple[IPAddress, ...] = ()
    forwards: bool = False  # this node offers routes to others
    forwards_v6: bool = False  # some of them IPv6 ones
    snat: bool = False
    stateful: bool = False
    exit_node: bool = False  # this node's own traffic leaves by another node, ours to the peers does not
    drop_spoofed: bool = True


def firewall_config(self_node: Node, prefs: Prefs) -> FirewallConfig:
    """RT-05. Preferences decide on the kind before control does, and of control's wishes iptables wins."""
    if prefs.netfilter_mode not in (NO_DIVERT, ON):
        return FirewallConfig()
    wished = [kind for kind in ("iptables", "nftables") if self_node.has_cap(_CAP_KIND + kind)]
    routes = prefs.routes()
    return FirewallConfig(
        mode=prefs.netfilter_mode,
        kind=prefs.netfilter_kind or (wished[0] if wished else ""),
        own=tuple(self_node.ips),
        forwards=bool(routes),
        forwards_v6=any(route.version == 6 and not is_via(route) for route in routes),
        snat=not prefs.no_snat,
        stateful=prefs.no_stateful_filtering is False,
        exit_node=prefs.wants_exit_node,
        drop_spoofed=not self_node.has_cap(_CAP_NO_CGNAT_DROP),
    )
