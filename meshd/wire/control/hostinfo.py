"""What a node says about its machine: Hostinfo, NetInfo, Service."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import Int64, Port, PrefixText, always


class Service(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A listening port. `proto` is tcp, udp, peerapi4, peerapi6 or peerapi-dns-proxy (port 1)."""

    proto: str = always("")
    port: Port = always(0)
    description: str = ""


class NetInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Result of a network check. Optional booleans: None is "unknown"."""

    mapping_varies_by_dest_ip: bool | None = msgspec.field(name="MappingVariesByDestIP", default=None)
    working_ipv6: bool | None = None
    os_has_ipv6: bool | None = None
    working_udp: bool | None = None
    working_icmpv4: bool | None = None
    hair_pinning: bool | None = None
    """Written by clients up to 1.70 only."""
    have_port_map: bool = False
    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None
    preferred_derp: Int64 = always(0)
    """Home region, 0 = none. The server copies it to `Node.home_derp`."""
    link_type: str = ""
    """wired, wifi, mobile or empty."""
    derp_latency: dict[str, float] = msgspec.field(default_factory=dict, name="DERPLatency")
    """`<region>-v4` or `<region>-v6` to seconds."""
    firewall_mode: str = ""


class Location(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Where a node claims to be. Degrees; a higher priority is preferred among equals."""

    country: str = ""
    country_code: str = ""
    city: str = ""
    city_code: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    priority: Int64 = 0


class TPMInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """The security chip of a node, when it reports one."""

    manufacturer: str = ""
    vendor: str = ""
    model: Int64 = 0
    firmware_version: int = 0
    spec_revision: Int64 = 0
    family_indicator: str = ""


class Hostinfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Everything is left out when empty. A server stores the last one whole, so always send all of it."""

    ipn_version: str = ""
    frontend_log_id: str = ""
    backend_log_id: str = ""
    os: str = ""
    os_version: str = ""
    container: bool | None = None
    env: str = ""
    distro: str = ""
    distro_version: str = ""
    distro_code_name: str = ""
    app: str = ""
    desktop: bool | None = None
    package: str = ""
    device_model: str = ""
    push_device_token: str = ""
    hostname: str = ""
    shields_up: bool = False
    sharee_node: bool = False
    no_logs_no_support: bool = False
    remote_config: bool = False
    wire_ingress: bool = False
    ingress_enabled: bool = False
    allows_update: bool = False
    machine: str = ""
    go_arch: str = ""
    go_arch_var: str = ""
    go_version: str = ""
    routable_ips: tuple[PrefixText, ...] = ()
    """Advertised routes; an exit node lists 0.0.0.0/0 and ::/0."""
    request_tags: tuple[str, ...] = ()
    wol_macs: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    net_info: NetInfo | None = None
    ssh_host_keys: tuple[str, ...] = msgspec.field(name="sshHostKeys", default=())
    """authorized_keys lines; present means that the SSH server is on."""
    cloud: str = ""
    userspace: bool | None = None
    userspace_router: bool | None = None
    app_connector: bool | None = None
    services_hash: str = ""
    peer_relay: bool = False
    exit_node_id: str = ""
    location: Location | None = None
    tpm: TPMInfo | None = None
    state_encrypted: bool | None = None
