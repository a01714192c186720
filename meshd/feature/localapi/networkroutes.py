"""Routes about DNS, filter, paths, forwarding and exit nodes of this node."""

from __future__ import annotations

from meshd.base.addr import parse_ip
from meshd.base.errors import MeshdError
from meshd.feature.localapi.jsontext import json_response
from meshd.feature.localapi.route import Access, Call, Route, error_response
from meshd.feature.localapi.statusroutes import FALSE_TEXTS, TRUE_TEXTS
from meshd.io.http.h1server import HttpError, Response


async def _dns_config(call: Call) -> Response:
    return json_response(call.backend.dns_config(), tabs=True)


async def _dns_os_config(call: Call) -> Response:
    return json_response(call.backend.os_dns())


async def _dns_query(call: Call) -> Response:
    name, kind = await call.request.value("name"), await call.request.value("type")
    with call.request.cancel_if_gone():
        return json_response(await call.backend.dns_query(name, kind))


async def _cert_domains(call: Call) -> Response:
    return json_response(call.backend.cert_domains())


async def _services(call: Call) -> Response:
    return json_response(call.backend.services())


async def _filter_matches(call: Call) -> Response:
    matches = call.backend.packet_filter_matches()
    if matches is None:
        raise HttpError(404, "no netmap")
    return json_response(matches, tabs=True)


async def _path_changes(call: Call) -> Response:
    text = await call.request.value("ip")
    if not text:
        raise HttpError(400, "missing 'ip' parameter")
    try:
        ip = parse_ip(text)
    except ValueError:
        raise HttpError(400, "invalid IP") from None
    try:
        return json_response(call.backend.path_changes(ip), tabs=True)
    except MeshdError as error:
        raise HttpError(500, str(error)) from None


async def _socket_mark(call: Call) -> Response:
    return json_response({"UseSOMark": call.backend.marks_sockets()})


async def _check_udp_gro(call: Call) -> Response:
    return json_response({"Warning": call.backend.check_udp_gro()})


async def _set_udp_gro(call: Call) -> Response:
    try:
        await call.backend.enable_udp_gro()
    except MeshdError as error:
        return json_response({"Warning": str(error)})
    return json_response({"Warning": ""})


async def _suggest(call: Call) -> Response:
    try:
        return json_response(call.backend.suggest_exit_node())
    except MeshdError as error:
        return error_response(error)


async def _use_exit_node(call: Call) -> Response:
    wanted = await call.request.value("enabled")
    if wanted not in TRUE_TEXTS and wanted not in FALSE_TEXTS:
        raise HttpError(400, "invalid 'enabled' parameter")
    return json_response(await call.backend.use_exit_node(wanted in TRUE_TEXTS), tabs=True)


_GET, _POST = ("GET",), ("POST",)
_ONLY_GET = (405, "only GET allowed")

ROUTES = [
    Route("dns-config", _dns_config, Access.READ, "dns-config access denied"),
    Route(
        "dns-osconfig",
        _dns_os_config,
        Access.WRITE,
        "dns-osconfig dump access denied",
        methods=_GET,
        wrong_method=_ONLY_GET,
    ),
    Route("dns-query", _dns_query, Access.WRITE, "dns-query access denied", methods=_GET, wrong_method=_ONLY_GET),
    Route("cert-domains", _cert_domains, Access.READ, "cert-domains access denied"),
    Route("services", _services, Access.OPEN, methods=_GET, wrong_method=_ONLY_GET),
    Route("debug-packet-filter-matches", _filter_matches, Access.WRITE, "debug access denied"),
    Route("debug-peer-endpoint-changes", _path_changes, Access.READ, "status access denied"),
    Route("check-so-mark-in-use", _socket_mark, Access.READ, "SO_MARK check access denied"),
    Route("check-udp-gro-forwarding", _check_udp_gro, Access.READ, "UDP GRO forwarding check access denied"),
    Route("set-udp-gro-forwarding", _set_udp_gro, Access.WRITE, "UDP GRO forwarding set access denied"),
    Route("suggest-exit-node", _suggest, Access.OPEN, methods=("GET", "POST"), wrong_method=(405, "want POST")),
    Route("set-use-exit-node-enabled", _use_exit_node, Access.WRITE, methods=_POST, wrong_method=(405, "use POST")),
]
