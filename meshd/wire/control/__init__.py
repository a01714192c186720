"""The JSON messages between a node and its coordination server (over ts2021), as typed values.

`decode(Type, data)` and `encode(value)` are the only way in and out. Values are immutable: make a changed
copy with `msgspec.structs.replace`. Sequences are tuples. Where a field may be null, null and absent are
the same thing and both are None. Keys, addresses, prefixes and times are text whose form has been checked.
"""

from __future__ import annotations

from meshd.wire.control.codec import decode, encode
from meshd.wire.control.derpmap import DERPHomeParams, DERPMap, DERPNode, DERPRegion
from meshd.wire.control.derpmerge import merge_derp_map
from meshd.wire.control.dns import DNSConfig, DNSRecord, Resolver
from meshd.wire.control.filter import CapGrant, FilterRule, NetPortRange, PortRange
from meshd.wire.control.filtermerge import NamedFilters
from meshd.wire.control.hostinfo import Hostinfo, Location, NetInfo, Service, TPMInfo
from meshd.wire.control.key import OverTLSPublicKey
from meshd.wire.control.mapreq import (
    ENDPOINT_EXPLICIT,
    ENDPOINT_LOCAL,
    ENDPOINT_PORT_MAPPED,
    ENDPOINT_STUN,
    ENDPOINT_STUN_LOCAL_PORT,
    ENDPOINT_UNKNOWN,
    MapRequest,
)
from meshd.wire.control.mapresp import MapResponse
from meshd.wire.control.node import CheckedNode, Node, PeerChange
from meshd.wire.control.notice import (
    ClientVersion,
    ControlDialPlan,
    ControlIPCandidate,
    Debug,
    DisplayMessage,
    DisplayMessageAction,
    TKAInfo,
)
from meshd.wire.control.ping import PingRequest, PingResponse
from meshd.wire.control.register import RegisterAuth, RegisterRequest, RegisterResponse
from meshd.wire.control.ssh import SSHAction, SSHPolicy, SSHPrincipal, SSHRecorderFailureAction, SSHRule
from meshd.wire.control.user import Login, User, UserProfile
from meshd.wire.control.values import (
    ZERO_DISCO_KEY,
    ZERO_LOCK_KEY,
    ZERO_MACHINE_KEY,
    ZERO_NODE_KEY,
    ZERO_TIME,
    CapMap,
)
from meshd.wire.control.verify import DERPAdmitRequest, DERPAdmitResponse

__all__ = [
    "ENDPOINT_EXPLICIT",
    "ENDPOINT_LOCAL",
    "ENDPOINT_PORT_MAPPED",
    "ENDPOINT_STUN",
    "ENDPOINT_STUN_LOCAL_PORT",
    "ENDPOINT_UNKNOWN",
    "ZERO_DISCO_KEY",
    "ZERO_LOCK_KEY",
    "ZERO_MACHINE_KEY",
    "ZERO_NODE_KEY",
    "ZERO_TIME",
    "CapGrant",
    "CapMap",
    "CheckedNode",
    "ClientVersion",
    "ControlDialPlan",
    "ControlIPCandidate",
    "DERPAdmitRequest",
    "DERPAdmitResponse",
    "DERPHomeParams",
    "DERPMap",
    "DERPNode",
    "DERPRegion",
    "DNSConfig",
    "DNSRecord",
    "Debug",
    "DisplayMessage",
    "DisplayMessageAction",
    "FilterRule",
    "Hostinfo",
    "Location",
    "Login",
    "MapRequest",
    "MapResponse",
    "NamedFilters",
    "NetInfo",
    "NetPortRange",
    "Node",
    "OverTLSPublicKey",
    "PeerChange",
    "PingRequest",
    "PingResponse",
    "PortRange",
    "RegisterAuth",
    "RegisterRequest",
    "RegisterResponse",
    "Resolver",
    "SSHAction",
    "SSHPolicy",
    "SSHPrincipal",
    "SSHRecorderFailureAction",
    "SSHRule",
    "Service",
    "TKAInfo",
    "TPMInfo",
    "User",
    "UserProfile",
    "decode",
    "encode",
    "merge_derp_map",
]
