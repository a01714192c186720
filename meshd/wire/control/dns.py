"""DNS settings of the network."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import IPText, always


class Resolver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """`addr` is an IP, ip:port, an https:// URL (DoH) or an http:// URL (a peer's PeerAPI)."""

    addr: str = ""
    bootstrap_resolution: tuple[IPText, ...] = ()
    use_with_exit_node: bool = False


class DNSRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A name served by MagicDNS. `type` is empty, A or AAAA."""

    name: str = always("")
    type: str = ""
    value: str = always("")


class DNSConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Replaces the previous one as a whole; all-empty means no DNS configuration."""

    resolvers: tuple[Resolver, ...] = ()
    routes: dict[str, tuple[Resolver, ...] | None] = msgspec.field(default_factory=dict)
    """Suffix to its resolvers; an empty list (or null) is answered from MagicDNS itself. Send `()`, not None."""
    fallback_resolvers: tuple[Resolver, ...] = ()
    domains: tuple[str, ...] = ()
    proxied: bool = False
    """MagicDNS is on."""
    nameservers: tuple[IPText, ...] = ()
    cert_domains: tuple[str, ...] = ()
    extra_records: tuple[DNSRecord, ...] = ()
    exit_node_filtered_set: tuple[str, ...] = ()
