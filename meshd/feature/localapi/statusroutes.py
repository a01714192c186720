"""Routes that tell: status, who is who, relay map, filter rules, host checks."""

from __future__ import annotations

import re

from meshd.base.addr import AddrPort, IPAddress, parse_ip
from meshd.base.keys import NodePublic
from meshd.feature.localapi.backendapi import JSON
from meshd.feature.localapi.jsontext import json_response, status_response
from meshd.feature.localapi.route import Access, Call, Route
from meshd.io.http.h1server import HttpError, Response

TRUE_TEXTS = {"1", "t", "T", "TRUE", "true", "True"}
FALSE_TEXTS = {"0", "f", "F", "FALSE", "false", "False"}
_SERVICE_NAME = re.compile(r"svc:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")


def parse_bool(text: str, default: bool) -> bool:
    """A boolean parameter; anything unreadable counts as not given."""
    return True if text in TRUE_TEXTS else False if text in FALSE_TEXTS else default


async def _status(call: Call) -> Response:
    if parse_bool(await call.request.value("peers"), True):
        return status_response(*call.backend.status_parts())
    return json_response(call.backend.status(peers=False), tabs=True)


async def _whois(call: Call) -> Response:
    text = await call.request.value("addr")
    if not text:
        raise HttpError(400, "missing 'addr' parameter")
    service, at = await call.request.value("svc_name"), await _destination(call)
    if service and not _SERVICE_NAME.fullmatch(service):
        raise HttpError(400, "invalid svc_name")
    found = _whois_key(call, text, at) if text.startswith("nodekey:") else await _whois_address(call, text, at)
    if found is None:
        raise HttpError(404, "no match for IP:port")
    if service:
        found["CapMap"] = None  # a service is reached at nodes that host it, and this one hosts none
    return json_response(found, tabs=True)


async def _destination(call: Call) -> IPAddress | None:
    text = await call.request.value("dst_ip")
    try:
        return parse_ip(text) if text else None
    except ValueError:
        raise HttpError(400, "invalid dst_ip") from None


def _whois_key(call: Call, text: str, at: IPAddress | None) -> JSON | None:
    try:
        key = NodePublic.parse(text)
    except ValueError:
        raise HttpError(400, "invalid nodekey in 'addr' parameter") from None
    return call.backend.whois_node(key, at)


async def _whois_address(call: Call, text: str, at: IPAddress | None) -> JSON | None:
    try:
        address = AddrPort(parse_ip(text), 0)
    except ValueError:
        try:
            address = AddrPort.parse(text)
        except ValueError:
            raise HttpError(400, "invalid 'addr' parameter") from None
    return call.backend.whois(address.ip, address.port, await call.request.value("proto"), at)


async def _positive_id(call: Call) -> int:
    text = await call.request.value("id")
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) < 1 << 63):
        raise HttpError(400, "invalid 'id' parameter")
    return int(text)


async def _peer_by_id(call: Call) -> Response:
    node = call.backend.peer_by_id(await _positive_id(call))
    if node is None:
        raise HttpError(404, "no peer with that NodeID")
    return json_response(node, tabs=True)


async def _user_profile(call: Call) -> Response:
    profile = call.backend.user_profile(await _positive_id(call))
    if profile is None:
        raise HttpError(404, "no user with that UserID")
    return json_response(profile, tabs=True)


async def _derp_map(call: Call) -> Response:
    return json_response(call.backend.derp_map(), tabs=True)


async def _filter_rules(call: Call) -> Response:
    rules = call.backend.packet_filter_rules()
    if rules is None:
        raise HttpError(404, "no netmap")
    return json_response(rules, tabs=True)


async def _check_ip_forwarding(call: Call) -> Response:
    return json_response({"Warning": call.backend.check_ip_forwarding()})


ROUTES = [
    Route("status", _status, Access.READ, "status access denied"),
    Route("whois", _whois, Access.READ, "whois access denied"),
    Route("peer-by-id", _peer_by_id, Access.READ, "peer-by-id access denied"),
    Route("user-profile", _user_profile, Access.READ, "user-profile access denied"),
    Route("derpmap", _derp_map, Access.OPEN, methods=("GET",), wrong_method=(400, "want GET")),
    Route("debug-packet-filter-rules", _filter_rules, Access.WRITE, "debug access denied"),
    Route("check-ip-forwarding", _check_ip_forwarding, Access.READ, "IP forwarding check access denied"),
]
