"""The requests that machines make over ts2021: register and map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import MachinePublic
from meshd.base.log import get_logger, kv
from meshd.coord.distributor import Distributor
from meshd.coord.intake import MAX_INT, usual_map
from meshd.coord.mapstream import MapStream
from meshd.coord.nodecalls import MAX_ANSWER_BYTES, NodeCalls
from meshd.coord.nodecalls import PATH as CALL_PATH
from meshd.coord.presence import Presence
from meshd.coord.records import NodeRecord
from meshd.coord.registration import Registrar
from meshd.coord.registry import Registry
from meshd.io.http.h2server import H2Stream
from meshd.wire.control import MapRequest, RegisterRequest, decode, encode
from meshd.wire.mapframe import encode_map_frame

log = get_logger(__name__)

MIN_VERSION = 90
"""Oldest capability version served: everything the maps contain is understood from there on."""
TEXT = "text/plain; charset=utf-8"
MAX_REGISTER_BYTES = 64 * 1024
"""Anybody may send one, and it is kept while an administrator thinks about it; honest ones have 2 KiB."""
MAX_MAP_BYTES = 256 * 1024
"""What a node tells of itself here goes to all its peers; host information with a thousand routes has 40 KiB."""
MAX_ANSWERS = 4
"""Whole maps that one node may leave unread at a time, beside its stream."""


class ControlService:
    """Answers one request at a time per stream; holds nothing about connections."""

    def __init__(
        self,
        registry: Registry,
        registrar: Registrar,
        distributor: Distributor,
        presence: Presence,
        calls: NodeCalls,
    ) -> None:
        self._registry = registry
        self._registrar = registrar
        self._distributor = distributor
        self._presence = presence
        self._calls = calls
        self._network = registry.network
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: dict[int, list[H2Stream]] = {}
        """Maps on their way by node id, oldest first."""

    def handle(self, machine: MachinePublic, version: int, source_ip: str, stream: H2Stream) -> None:
        """Answer a request of a machine whose key is proven."""
        path = stream.path.partition("?")[0]
        if path.startswith(CALL_PATH):
            self._called(machine, path.removeprefix(CALL_PATH), stream)
            return
        known = {"/machine/register": self._register, "/machine/map": self._map}.get(path)
        if known is None:
            stream.respond(404, b"not found\n", TEXT)
        elif stream.method != "POST":
            stream.respond(405, b"use POST\n", TEXT)
        else:
            self._spawn(stream, lambda: known(machine, source_ip, stream))

    def _called(self, machine: MachinePublic, token: str, stream: H2Stream) -> None:
        """A node answers a call."""
        if stream.method != "POST" or len(stream.body) > MAX_ANSWER_BYTES:
            stream.respond(400, b"an answer of moderate size is expected by POST\n", TEXT)
        elif self._calls.answered(machine, token, bytes(stream.body)):
            stream.respond(200, b"")
        else:
            stream.respond(404, b"nobody asked that\n", TEXT)

    def _spawn(self, stream: H2Stream, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = self._loop.create_task(self._guard(stream, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def given_up() -> None:
            task.cancel()

        stream.on_closed = given_up

    async def _guard(self, stream: H2Stream, work: Callable[[], Coroutine[None, None, None]]) -> None:
        path = stream.path.partition("?")[0]
        try:
            await work()
        except WireError as error:
            log.info("request_refused", extra=kv(path=path, reason=str(error)))
            stream.respond(400, f"{error}\n".encode(), TEXT)
        except MeshdError as error:
            log.warning("request_failed", extra=kv(path=path, reason=error.message))
            stream.respond(429 if error.code == "busy" else 503, f"{error.message}\n".encode(), TEXT)
        except Exception as error:
            log.error("request_failed", extra=kv(path=path, reason=repr(error)), exc_info=error)
            stream.respond(500, b"internal error\n", TEXT)

    async def _register(self, machine: MachinePublic, source_ip: str, stream: H2Stream) -> None:
        _check_size(stream, MAX_REGISTER_BYTES)
        request = decode(RegisterRequest, bytes(stream.body))
        stream.body.clear()
        _check_version(request.version)
        answer = await self._registrar.register(request, machine, source_ip)
        stream.respond(200, encode(answer))

    async def _map(self, machine: MachinePublic, source_ip: str, stream: H2Stream) -> None:
        _check_size(stream, MAX_MAP_BYTES)
        request = usual_map(decode(MapRequest, bytes(stream.body)))
        stream.body.clear()
        _check_version(request.version)
        node = self._network.by_node_key.get(request.node_key)
        if node is None or node.machine_key != machine.text():
            stream.respond(404, b"node not found\n", TEXT)
            return
        if self._registry.report(node, request):
            try:
                await self._registry.save(node)
            except MeshdError as error:
                # The network must not end with the disk: what a node tells it tells again after our next start.
                log.error("not_stored", extra=kv(node=node.name, reason=error.message))
        if request.omit_peers and not request.stream:
            stream.respond(200, b"")
        elif self._network.by_node_key.get(request.node_key) is not node:
            stream.respond(404, b"this node was deleted or got another key a moment ago\n", TEXT)
        elif request.stream:
            self._stream(node, request, stream)
        else:
            self._answer_once(node, request, stream)

    def _stream(self, node: NodeRecord, request: MapRequest, stream: H2Stream) -> None:
        if stream.closed:
            return
        stream.start(200)
        session = MapStream(self._distributor, node, stream, zstd=request.compress == "zstd")

        def closed() -> None:
            if self._distributor.detach(session):
                self._presence.left(node)

        stream.on_closed = closed
        stream.on_drained = lambda: self._distributor.catch_up(session)
        self._presence.arrived(node)
        try:
            self._distributor.attach(session)
        except BaseException:
            self._presence.left(node)
            stream.reset()
            raise

    def _answer_once(self, node: NodeRecord, request: MapRequest, stream: H2Stream) -> None:
        stream.start(200)
        message = MapStream(self._distributor, node, stream, zstd=False).full()
        stream.write(encode_map_frame(message, request.compress == "zstd"))
        stream.end()
        if not stream.closed:
            self._hold(node.id, stream)

    def _hold(self, node_id: int, stream: H2Stream) -> None:
        """Remember an answer until it has left; the oldest of too many is broken off."""
        answers = self._answers.setdefault(node_id, [])
        answers.append(stream)

        def closed() -> None:
            answers.remove(stream)
            if not answers:
                del self._answers[node_id]

        stream.on_closed = closed
        if len(answers) > MAX_ANSWERS:
            answers[0].reset()

    def node_deleted(self, node: NodeRecord) -> None:
        """End the stream of a node that is gone."""
        self._presence.forget(node)
        session = self._distributor.stream_of(node.id)
        if session is not None:
            self._distributor.detach(session)
            session.end()

    def node_rekeyed(self, node: NodeRecord, old_key: str) -> None:
        """A stream that was opened under the old node key has no right to go on."""
        session = self._distributor.stream_of(node.id)
        if session is not None and self._distributor.detach(session):
            self._presence.left(node)
            session.end()

    def close(self) -> None:
        """End every request."""
        self._distributor.close()
        for task in list(self._tasks):
            task.cancel()


def _check_size(stream: H2Stream, limit: int) -> None:
    if len(stream.body) > limit:
        raise WireError(f"request of {len(stream.body)} bytes", expected=f"at most {limit}")


def _check_version(version: int) -> None:
    if not MIN_VERSION <= version <= MAX_INT:
        raise WireError(f"unsupported client version: {version}", expected=f"capability version {MIN_VERSION} or later")
