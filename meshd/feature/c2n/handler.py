"""Calls of the coordination server to this node, which come through the map stream.

A call is an HTTP request that no network carries: it is looked up here and answered from what the node knows. Paths
of parts that this node lacks are unknown paths, as for any node without them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.io.wakeonlan import parse_mac
from meshd.wire.httpmessage import JSON as JSON_TYPE
from meshd.wire.httpmessage import MessageRequest, MessageResponse, read_request, write_response

JSON = dict[str, Any]
log = get_logger(__name__)

MAX_SECONDS = 30 * 86400
PLAIN = "text/plain"


class Node(Protocol):
    """What the calls are about; `meshd.node.service.NodeService` is one."""

    def prefs(self) -> JSON: ...
    def metrics(self) -> str: ...
    async def netmap(self) -> JSON | None: ...
    def candidate_netmap(self, message: bytes) -> JSON: ...
    def health(self) -> JSON: ...
    def stacks(self) -> str: ...
    def wake(self, macs: list[bytes]) -> JSON: ...
    def posture(self, *, addresses: bool) -> JSON: ...
    async def log_component(self, component: str, seconds: int) -> None: ...
    async def edit_prefs(self, masked: Mapping[str, Any]) -> JSON: ...


Handler = Callable[[Node, MessageRequest], Awaitable[MessageResponse]]


async def answer_call(node: Node, payload: bytes) -> bytes:
    """The serialized answer to a serialized request."""
    try:
        request = read_request(payload)
    except WireError as error:
        log.info("control_call_refused", extra=kv(reason=str(error)))
        return write_response(_error(400, "bad request"))
    handler = _ROUTES.get(f"{request.method} {request.path}") or _ROUTES.get(request.path)
    if handler is None:
        known = request.path in _PATHS
        return write_response(_error(405, "bad method") if known else _error(400, "unknown c2n path"))
    log.info("control_call", extra=kv(method=request.method, path=request.path))
    try:
        return write_response(await handler(node, request))
    except MeshdError as error:
        return write_response(_error(500, error.message))
    except OSError as error:  # what the system refuses when it is at its limits
        return write_response(_error(500, error.strerror or str(error)))


def _error(status: int, text: str) -> MessageResponse:
    return MessageResponse(status, text.encode() + b"\n")


def _json(value: object) -> MessageResponse:
    return MessageResponse(200, msgspec.json.encode(value) + b"\n", JSON_TYPE)


async def _echo(node: Node, request: MessageRequest) -> MessageResponse:
    return MessageResponse(200, request.body)


async def _stacks(node: Node, request: MessageRequest) -> MessageResponse:
    return MessageResponse(200, node.stacks().encode(), PLAIN)


async def _prefs(node: Node, request: MessageRequest) -> MessageResponse:
    return _json(node.prefs())


async def _metrics(node: Node, request: MessageRequest) -> MessageResponse:
    return MessageResponse(200, node.metrics().encode(), PLAIN)


async def _component_logging(node: Node, request: MessageRequest) -> MessageResponse:
    seconds = _number(request.form.get("secs", "")) or -1
    try:
        await node.log_component(request.form.get("component", ""), min(seconds, MAX_SECONDS))
    except MeshdError as error:
        return _json({"Error": error.message})
    return _json({})


async def _netmap(node: Node, request: MessageRequest) -> MessageResponse:
    if request.method not in ("GET", "POST"):
        return _error(405, "method not allowed")
    answer: JSON = {}
    omit: list[str] = []
    if request.method == "POST":
        try:
            wanted = msgspec.json.decode(request.body, type=_NetmapRequest)
            omit = wanted.omit or []
            candidate = bytes(wanted.candidate)
            if candidate != b"null":
                answer["candidate"] = _without(node.candidate_netmap(candidate), omit)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return _error(400, f"failed to decode request body: {error}")
        except WireError as error:
            return _error(400, f"failed to convert candidate MapResponse: {error}")
    return _json({"current": _without(await node.netmap(), omit)} | answer)


class _NetmapRequest(msgspec.Struct):
    candidate: msgspec.Raw = msgspec.Raw(b"null")
    omit: list[str] | None = msgspec.field(name="omitFields", default=None)


def _without(netmap: JSON | None, omit: list[str]) -> JSON | None:
    return None if netmap is None else {name: value for name, value in netmap.items() if name not in omit}


async def _health(node: Node, request: MessageRequest) -> MessageResponse:
    return _json(node.health())


async def _flush_logs(node: Node, request: MessageRequest) -> MessageResponse:
    """Logs stay on this machine, so nothing waits to leave."""
    return _error(500, "no log flusher wired up")


async def _socket_statistics(node: Node, request: MessageRequest) -> MessageResponse:
    """They would be in an uploaded log."""
    return _error(500, "no sockstatLogger")


async def _no_profile(node: Node, request: MessageRequest) -> MessageResponse:
    """This program keeps no profile of its heap."""
    return _error(501, "not implemented")


async def _update_wish(node: Node, request: MessageRequest) -> MessageResponse:
    return _json(_update(node))


async def _update_order(node: Node, request: MessageRequest) -> MessageResponse:
    """The package manager updates this program; an order of the server starts nothing."""
    answer = _update(node)
    return _json({"Err": "not supported" if answer["Enabled"] else "not enabled"} | answer)


def _update(node: Node) -> JSON:
    wish = node.prefs().get("AutoUpdate") or {}
    return {"Enabled": wish.get("Apply") is True, "Supported": False, "Started": False}


async def _wake(node: Node, request: MessageRequest) -> MessageResponse:
    try:
        macs = [parse_mac(value) for name, value in request.parameters if name == "mac"]
    except ValueError:
        return _error(400, "bad 'mac' param")
    return _json(node.wake(macs))


async def _certificate(node: Node, request: MessageRequest) -> MessageResponse:
    """This version fetches no certificates, so none is there."""
    if not request.form.get("domain"):
        return _error(400, "no 'domain'")
    return _json({"Error": "no certificate", "Missing": True})


async def _connector_routes(node: Node, request: MessageRequest) -> MessageResponse:
    return _json({"Domains": None})


async def _hosted_services(node: Node, request: MessageRequest) -> MessageResponse:
    return _json({"VIPServices": None, "ServicesHash": ""})


async def _posture(node: Node, request: MessageRequest) -> MessageResponse:
    if not node.prefs().get("PostureChecking"):
        return _json({"PostureDisabled": True})
    return _json(node.posture(addresses=request.form.get("hwaddrs", "").lower() in ("true", "1", "t")))


async def _netfilter_kind(node: Node, request: MessageRequest) -> MessageResponse:
    kind = request.form.get("kind", "")
    await node.edit_prefs({"NetfilterKind": kind, "NetfilterKindSet": True})
    return MessageResponse(204)


def _number(text: str) -> int:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else 0


_ROUTES: dict[str, Handler] = {
    "/echo": _echo,
    "/debug/goroutines": _stacks,
    "/debug/prefs": _prefs,
    "/debug/metrics": _metrics,
    "/debug/component-logging": _component_logging,
    "/debug/netmap": _netmap,
    "/debug/health": _health,
    "/debug/logheap": _no_profile,
    "/debug/pprof/heap": _no_profile,
    "/debug/pprof/allocs": _no_profile,
    "POST /logtail/flush": _flush_logs,
    "POST /sockstats": _socket_statistics,
    "GET /update": _update_wish,
    "POST /update": _update_order,
    "GET /posture/identity": _posture,
    "GET /tls-cert-status": _certificate,
    "GET /appconnector/routes": _connector_routes,
    "GET /vip-services": _hosted_services,
    "POST /wol": _wake,
    "POST /netfilter-kind": _netfilter_kind,
}
"""By method and path, or by path for any method."""

_PATHS = {pattern.rpartition(" ")[2] for pattern in _ROUTES}
