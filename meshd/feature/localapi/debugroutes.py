"""Routes for people who debug the daemon or watch it: actions, metrics, stacks, log lines, shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from meshd.base.errors import MeshdError
from meshd.feature.localapi.jsontext import json_response, parse_object, response_in_turns
from meshd.feature.localapi.route import NO_CONTENT, Access, Call, Route, error_response, plain, require
from meshd.feature.localapi.statusroutes import parse_bool
from meshd.io.http.h1server import HttpError, Response
from meshd.node.stacks import stack_dump

PROFILE_S, MAX_PROFILE_S = 30, 600
"""How long a CPU profile is recorded unless the client says so, and at most."""

RECORD_S = 12 * 3600
"""Longest time for which a bug report that records has paths logged in detail."""


async def _debug(call: Call) -> Response:
    in_header = call.request.header("debug-action") == "notify"  # its body is JSON, which could not hold a parameter
    action = "notify" if in_header else await call.request.value("action")
    if not action:
        raise HttpError(400, "missing parameter 'action'")
    body = await call.request.body()
    try:
        answer = await call.backend.debug(action, body)
    except MeshdError as error:
        text = f'unknown action "{action}"' if error.code == "not_found" else str(error)
        raise HttpError(400, text) from error
    if answer is None:
        return plain("done\n")
    return await response_in_turns(answer)


async def _metrics(call: Call) -> Response:
    return plain(call.backend.metrics())


async def _user_metrics(call: Call) -> Response:
    return plain(call.backend.user_metrics(), "text/plain;version=0.0.4;charset=utf-8")


async def _stacks(call: Call) -> Response:
    """Every task of the event loop and every thread, with the lines they stand at; no argument values."""
    return plain(stack_dump())


async def _profile(call: Call) -> Response:
    name, seconds = await call.request.value("name"), await call.request.value("seconds")
    if name in ("goroutine", "threadcreate"):
        return plain(stack_dump())
    if name == "heap" or name == "allocs":
        return _profile_response(await call.backend.profile("heap", 0))
    if name != "profile":
        raise HttpError(404, "Unknown profile")
    if seconds and not (seconds.isascii() and seconds.isdigit() and 0 < int(seconds[:9]) <= MAX_PROFILE_S):
        raise HttpError(400, f"invalid 'seconds', expected 1 to {MAX_PROFILE_S}")
    with call.request.cancel_if_gone():
        return _profile_response(await call.backend.profile("profile", int(seconds or PROFILE_S)))


def _profile_response(data: bytes) -> Response:
    return Response(200, [("Content-Type", "application/octet-stream")], data)


async def _rotate_disco_key(call: Call) -> Response:
    await call.backend.debug("rotate-disco-key", b"")
    return plain("done\n")


async def _bug_report(call: Call) -> Response:
    query = dict(call.request.query)  # the body, where there is one, is held open for as long as it records
    diagnose = parse_bool(query.get("diagnose", ""), False)
    marker = call.backend.bug_report(query.get("note", ""), diagnose=diagnose)
    if not parse_bool(query.get("record", ""), False):
        return plain(marker + "\n")
    require(call, Access.WRITE, "bugreport recording access denied")
    return Response(200, [("Content-Type", "text/plain")], _recording(call, marker))


async def _recording(call: Call, marker: str) -> AsyncIterator[bytes]:
    """The first marker, and a second one when the client has sent something or ended its request.

    Paths are logged in detail in between. What is begun here is ended here: a client that left before the first byte
    has nothing begun; and a component that is logged already stays so, for whoever wanted that.
    """
    yield marker.encode() + b"\n"
    mine = not call.backend.logs_component("magicsock")
    try:
        if mine:
            await call.backend.log_component("magicsock", RECORD_S)
        async for _ in call.request.parts(RECORD_S):
            break
        yield call.backend.bug_report("", diagnose=False).encode() + b"\n"
    finally:
        if mine:
            await call.backend.log_component("magicsock", 0)


async def _debug_log(call: Call) -> Response:
    entry = parse_object(await call.request.body(), complaint="invalid JSON body")
    lines = entry.get("Lines") or []
    prefix = entry.get("Prefix") or "debug-log"
    if not isinstance(prefix, str) or not isinstance(lines, list) or not all(isinstance(s, str) for s in lines):
        raise HttpError(400, "invalid JSON body")
    call.log.client_lines(prefix, lines, trusted=call.may.write)
    return Response(NO_CONTENT)


async def _upload_metrics(call: Call) -> Response:
    try:
        updates = orjson.loads(await call.request.body())
    except orjson.JSONDecodeError:
        raise HttpError(400, "invalid JSON body") from None
    if not isinstance(updates, list):
        raise HttpError(400, "invalid JSON body")
    await call.backend.upload_metrics(updates)
    return json_response({})


async def _component_logging(call: Call) -> Response:
    component = await call.request.value("component")
    seconds = await call.request.value("secs")
    digits = seconds.removeprefix("-")
    amount = int(seconds) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0
    try:
        await call.backend.log_component(component, amount)
    except MeshdError as error:
        return error_response(error, key="Error", status=200)
    return json_response({"Error": ""})


async def _capture(call: Call) -> Response:
    return Response(200, [("Content-Type", "application/vnd.tcpdump.pcap")], call.backend.capture())


async def _write_state(call: Call) -> Response:
    key = await call.request.value("key")
    if not key:
        raise HttpError(400, "missing parameter 'key'")
    await call.backend.write_state(key, await call.request.value("value"))
    return plain("done\n")


async def _shutdown(call: Call) -> Response:
    """An operator may be forbidden to disconnect, which this would be for good."""
    if not call.may.owner and not call.backend.operators_may_stop():
        raise HttpError(403, "shutdown access denied by policy")
    await call.backend.shutdown()
    return Response(200)


_POST = ("POST",)
_ONLY_POST = (405, "only POST allowed")

ROUTES = [
    Route("debug", _debug, Access.WRITE, "debug access denied", methods=_POST, wrong_method=(405, "POST required")),
    Route(
        "debug-capture",
        _capture,
        Access.WRITE,
        "debug access denied",
        methods=_POST,
        wrong_method=(405, "POST required"),
    ),
    Route("metrics", _metrics, Access.WRITE, "metric access denied"),
    Route("usermetrics", _user_metrics, Access.OPEN),
    Route("goroutines", _stacks, Access.WRITE, "goroutine dump access denied"),
    Route("pprof", _profile, Access.WRITE, "profile access denied"),
    Route(
        "debug-rotate-disco-key",
        _rotate_disco_key,
        Access.WRITE,
        "debug access denied",
        methods=_POST,
        wrong_method=(405, "POST required"),
    ),
    Route("bugreport", _bug_report, Access.READ, "bugreport access denied", methods=_POST, wrong_method=_ONLY_POST),
    Route("debug-log", _debug_log, Access.READ, "debug-log access denied", methods=_POST, wrong_method=_ONLY_POST),
    Route("component-debug-logging", _component_logging, Access.WRITE, "debug access denied"),
    Route(
        "upload-client-metrics",
        _upload_metrics,
        Access.OPEN,
        methods=_POST,
        wrong_method=(405, "unsupported method"),
    ),
    Route(
        "dev-set-state-store",
        _write_state,
        Access.WRITE,
        "debug access denied",
        methods=_POST,
        wrong_method=(405, "POST required"),
    ),
    Route("shutdown", _shutdown, Access.WRITE, "shutdown access denied", methods=_POST, wrong_method=_ONLY_POST),
]
