"""Routes for people who debug the daemon or watch it: actions, metrics, stacks, log lines, shutdown."""

from __future__ import annotations

import asyncio
import sys

import orjson

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.route import NO_CONTENT, Access, Call, Route, error_response, plain
from meshd.io.http.h1server import HttpError, Response

log = get_logger(__name__)

MAX_LOG_LINES = 60
"""Lines that one debug-log request may add to the log; the rest is dropped and counted."""
MAX_LOG_LINE_CHARACTERS = 1000
"""Length of one such line."""

_MARKER = "BUG-NO-LOGS-NO-SUPPORT-this-node-has-had-its-logging-disabled"
"""What clients show for a node whose logs stay on the machine."""


async def _debug(call: Call) -> Response:
    action = await call.request.value("action")
    if not action:
        raise HttpError(400, "missing parameter 'action'")
    body = await call.request.body()
    try:
        answer = await call.backend.debug(action, body)
    except MeshdError as error:
        text = f'unknown action "{action}"' if error.code == "not_found" else str(error)
        raise HttpError(400, text) from error
    return plain("done\n") if answer is None else json_response(answer)


async def _metrics(call: Call) -> Response:
    return plain(call.backend.metrics())


async def _user_metrics(call: Call) -> Response:
    return plain(call.backend.user_metrics(), "text/plain;version=0.0.4;charset=utf-8")


async def _stacks(call: Call) -> Response:
    """Every task of the event loop and every thread, with the lines they stand at; no argument values."""
    import traceback  # needed here only, and not small

    lines: list[str] = []
    for task in sorted(asyncio.all_tasks(), key=lambda t: t.get_name()):
        lines.append(f"task {task.get_name()}:")
        lines += [f"    {f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_qualname}" for f in task.get_stack()]
    for ident, frame in sys._current_frames().items():
        lines.append(f"thread {ident}:")
        lines += [line.rstrip() for line in traceback.format_stack(frame)]
    return plain("\n".join(lines) + "\n")


async def _bug_report(call: Call) -> Response:
    note = await call.request.value("note")
    log.info("bug_report", extra=kv(note=note[:MAX_LOG_LINE_CHARACTERS]))
    return plain(_MARKER + "\n")


async def _debug_log(call: Call) -> Response:
    entry = parse_object(await call.request.body(), complaint="invalid JSON body")
    lines = entry.get("Lines") or []
    prefix = entry.get("Prefix") or "debug-log"
    if not isinstance(prefix, str) or not isinstance(lines, list) or not all(isinstance(s, str) for s in lines):
        raise HttpError(400, "invalid JSON body")
    for line in lines[:MAX_LOG_LINES]:
        log.info("client_log", extra=kv(source=prefix[:64], line=line[:MAX_LOG_LINE_CHARACTERS]))
    if len(lines) > MAX_LOG_LINES:
        log.info("client_log_dropped", extra=kv(lines=len(lines) - MAX_LOG_LINES))
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


async def _shutdown(call: Call) -> Response:
    await call.backend.shutdown()
    return Response(200)


_POST = ("POST",)
_ONLY_POST = (405, "only POST allowed")

ROUTES = [
    Route("debug", _debug, Access.WRITE, "debug access denied", methods=_POST, wrong_method=(405, "POST required")),
    Route("metrics", _metrics, Access.WRITE, "metric access denied"),
    Route("usermetrics", _user_metrics, Access.OPEN),
    Route("goroutines", _stacks, Access.WRITE, "goroutine dump access denied"),
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
    Route("shutdown", _shutdown, Access.WRITE, "shutdown access denied", methods=_POST, wrong_method=_ONLY_POST),
]
