"""Rules of the packet filter, and capability grants between nodes."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import CapMap, Int64, Port, PrefixText, always


class PortRange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Ports from `first` to `last`, both included."""

    first: Port = always(0)
    last: Port = always(0)


class NetPortRange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Destination: `ip` is an address, a prefix, `a-b` or `*`. `bits` must be None."""

    ip: str = always("")
    bits: Int64 | None = None
    ports: PortRange = msgspec.field(default_factory=PortRange)


class CapGrant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Capabilities that the sources of the rule have towards `dsts`."""

    dsts: tuple[PrefixText, ...] = always(())
    caps: tuple[str, ...] = ()
    cap_map: CapMap = msgspec.field(default_factory=dict)


class FilterRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """What may come in. `dst_ports` and `cap_grant` exclude each other; no `ip_proto` is TCP, UDP, ICMP."""

    src_ips: tuple[str, ...] = always(())
    """Addresses, prefixes, `a-b`, `*`, or `cap:<node capability>`."""
    src_bits: tuple[Int64, ...] = ()
    """Must be empty: a filter that has them is refused."""
    dst_ports: tuple[NetPortRange, ...] = ()
    ip_proto: tuple[Int64, ...] = ()
    """Protocol numbers; the ones outside 0..255 match nothing."""
    cap_grant: tuple[CapGrant, ...] = ()
