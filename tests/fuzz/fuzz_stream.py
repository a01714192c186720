"""Fuzz targets of everything that speaks over a byte stream: HTTP of both kinds, DERP, SOCKS, the LocalAPI.

A connection may end at any byte. It may not raise, log an error, leave a task behind, or depend on how the bytes
were cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import h2.config
import h2.connection

from meshd.base.crypto import box_shared
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import NodePrivate, NodePublic
from meshd.core import derpclient
from meshd.core import prefs as preferences
from meshd.core.derpclient import DerpClient, PacketsReceived, State
from meshd.feature.c2n.handler import answer_call
from meshd.feature.localapi.server import LocalApiServer
from meshd.feature.proxy.httpproxy import http_proxy
from meshd.feature.proxy.listener import ProxyListener, either
from meshd.feature.proxy.socks5 import socks5
from meshd.io.http import front, h1client, h1connection, h1limits, h1message
from meshd.io.http.h2client import H2Client
from meshd.io.http.h2frames import DataMerger, FrameGuard
from meshd.io.http.h2server import H2Server, H2Stream
from meshd.io.peercred import PeerIdentity
from meshd.relay import server as relayserver
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer
from meshd.testing.fakebackend import FakeBackend
from meshd.wire import derp, socks
from meshd.wire.derpinfo import ClientInfo, ServerInfo
from meshd.wire.httpmessage import read_request
from tests.fuzz.eventloop import BENCH, Wire, parts_of
from tests.fuzz.target import target, vector

_LINES = (b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b": ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n")
_HEADERS = (b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: DERP\r\n", b"HTTP/1.0", b"99999999999")
_HTTP = (*_LINES, *_HEADERS, b"GET ", b"HEAD ", b"CONNECT ", b"%2e", b"?a=b&c", b"Host: local-tailscaled.sock\r\n")


def _requests() -> list[bytes]:
    return [
        b"GET /derp/probe?x=1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        b"HEAD /generate_204 HTTP/1.1\r\nHost: a\r\nX-Tailscale-Challenge: abc\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ]


# -- HTTP/1.1 servers


class _Owner:
    """Stands for the set of connections of a server."""

    closing = False

    def admit(self, connection: object) -> bool:
        return True

    def forget(self, connection: object) -> None:
        pass


_LIMITS = h1limits.Limits(header_bytes=2048, body_bytes=256)


async def _echo(request: h1message.Request) -> h1message.Response:
    text = f"{request.method} {request.path} {request.query} {await request.value('a')}".encode()
    if request.path == "/stream":
        return h1message.Response(200, body=request.parts())
    return h1message.Response(200, body=text.replace(b"\0", b"") + await request.body())


@target(seeds=lambda: [*_requests(), _requests()[2].replace(b"/a", b"/stream")], dictionary=_HTTP)
def fuzz_http_server(data: bytes) -> None:
    async def live() -> None:
        owner: Any = _Owner()
        await Wire(h1connection.Connection(_echo, _LIMITS, lambda fd: None, owner)).feed(data)

    BENCH.run(live)


def _calls() -> list[bytes]:
    head = b" HTTP/1.1\r\nHost: local-tailscaled.sock\r\n"
    paths = ("status", "prefs", "whois?addr=100.64.0.2:80", "watch-ipn-bus?mask=0", "ping?ip=100.64.0.2&type=disco")
    calls = [b"GET /localapi/v0/" + path.encode() + head + b"\r\n" for path in paths]
    for recorded in vector("localapi_recorded")["requests"]:
        body = recorded.get("body", "").encode()
        start = f"{recorded['method']} /localapi/v0/{recorded['path']}".encode() + head
        call = start + b"Content-Length: %d\r\n\r\n" % len(body) + body
        if len(call) <= 400 and call.isascii():
            calls.append(call)
    return calls


class _Local(FakeBackend):
    """With the preferences of a real node: those of the double believe what they are given."""

    def check_prefs(self, prefs: Any) -> None:
        preferences.check(preferences.from_json(prefs))

    async def edit_prefs(self, masked: Any, reason: str = "") -> dict[str, Any]:
        edited = preferences.edit(preferences.default_prefs(), masked)
        preferences.check(edited)
        return preferences.to_json(edited)


@target(seeds=_calls, dictionary=(*_HTTP, b"/localapi/v0/", b'{"a":[', b'"Set":true', b"null"))
def fuzz_local_api(data: bytes) -> None:
    """The daemon's own door, with a node behind it that exists only as data."""

    async def live() -> None:
        node: Any = _Local()
        server = LocalApiServer(node, limits=_LIMITS, daemon_uid=0)
        owner: Any = _Owner()
        connection = h1connection.Connection(server._handle, _LIMITS, lambda fd: None, owner)
        connection.peer = PeerIdentity(0, 0, None)
        await Wire(connection).feed(data)

    BENCH.run(live)


# -- the relay, and the HTTP front before it


class _Key(NodePrivate):
    """Works its public key out once: that takes longer than all else in most executions."""

    __slots__ = ()

    @lru_cache  # noqa: B019 -- there are two
    def public(self) -> NodePublic:
        return super().public()


_RELAY = _Key(bytes(31) + b"\x40")
_CLIENT = _Key(bytes(31) + b"\x41")
_box_shared = lru_cache(maxsize=1024)(box_shared)
_ITS_USERS: tuple[Any, ...] = (derpclient, relayserver)


@contextlib.contextmanager
def _shared_keys_known() -> Iterator[None]:
    """The same for what two keys share."""
    for module in _ITS_USERS:
        module.box_shared = _box_shared
    try:
        yield
    finally:
        for module in _ITS_USERS:
            module.box_shared = box_shared


def _derp_streams() -> list[bytes]:
    public, shared = _CLIENT.public().raw, box_shared(_CLIENT.raw, _RELAY.public().raw)
    upgrade = b"GET /derp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
    hello = derp.encode_client_info(public, shared, bytes(24), ClientInfo(version=2, can_ack_pings=True))
    frames = [
        derp.encode_note_preferred(True),
        derp.encode_ping(b"12345678"),
        bytes([4, 0, 0, 0, 36]) + public + b"self",
        bytes([4, 0, 0, 0, 42]) + bytes(range(32)) + b"TS\xf0\x9f\x92\xacxxxx",
        bytes([0x10, 0, 0, 0, 0]),
        bytes([0x99, 0, 0, 0, 3]) + b"new",
    ]
    begun = upgrade + b"\r\n" + hello
    fast = upgrade + b"Derp-Fast-Start: 1\r\n\r\n" + hello
    return [begun, fast, *(begun + frame for frame in frames), fast + b"".join(frames[:4])]


@target(seeds=lambda: [*_requests(), *_derp_streams()], dictionary=_HTTP, limit=900)
def fuzz_relay_connection(data: bytes) -> None:
    async def live() -> None:
        relay = RelayServer(_RELAY)
        pages = RelayPages(relay, ())

        async def handle(request: front.Request) -> front.Response | front.Upgrade:
            return await pages.handle(request) or front.Response(404, request.body)

        await Wire(front.FrontConnection(handle, False, lambda: None)).feed(data)
        await asyncio.sleep(0.1)
        assert not relay.clients

    with _shared_keys_known():
        BENCH.run(live)


def _derp_answers() -> list[bytes]:
    shared = box_shared(_RELAY.raw, _CLIENT.public().raw)
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
    info = ServerInfo(version=2, token_bucket_bytes_per_second=1, token_bucket_bytes_burst=9)
    begun = head + derp.encode_server_key(_RELAY.public().raw) + derp.encode_server_info(shared, bytes(24), info)
    frames = [
        bytes([5, 0, 0, 0, 40]) + bytes(32) + b"\4\0\0\0abcd",
        bytes([5, 0, 0, 0, 33]) + bytes(32) + b"x",
        derp.encode_ping(b"12345678"),
        derp.encode_pong(b"\0\1\2\3\4\5\6\7"),
        derp.encode_keep_alive(),
        derp.encode_peer_gone(bytes(32), derp.PeerGoneReason.NOT_HERE),
        bytes([0x14, 0, 0, 0, 2]) + b"ab",
        bytes([0x15, 0, 0, 0, 8]) + bytes(8),
    ]
    refusals = [b"HTTP/1.1 403 no\r\n\r\n", b"HTTP/1.1 101\r\n\r\n", b"junk"]
    return [begun, *(begun + frame for frame in frames), begun + b"".join(frames), *refusals]


@target(seeds=_derp_answers, dictionary=(b"\r\n\r\n", b"HTTP/1.1 101 "), limit=900)
def fuzz_derp_client(data: bytes) -> None:
    """A relay may say anything: we fail, or we go on; in two parts it means the same."""

    def hear(parts: tuple[bytes, ...], server_key: bytes | None) -> object:
        client = DerpClient(_CLIENT, host="a", random=lambda size: bytes(range(size)), server_key=server_key)
        client.start(0.0)
        for part in parts:
            client.receive_data(part, 1.0)
        packets: list[object] = []
        others: list[object] = []
        for effect in client.drain():
            if isinstance(effect, PacketsReceived):
                packets += [*effect.transport, *effect.other]
            else:
                others.append(effect)
        # Packets of one read come together, after what else was in it; those before a fault are lost.
        return (
            client.state,
            others,
            client.data_to_send(),
            sorted(map(repr, packets)) if client.state is State.RUNNING else None,
        )

    with _shared_keys_known():
        for server_key in (None, _RELAY.public().raw):
            assert hear((data,), server_key) == hear(parts_of(data), server_key)


# -- HTTP/1.1 clients


class _Answers:
    """A `ByteStream` that has all its input already."""

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self._parts = [part for part in parts if part]

    async def read(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


def _finish(work: Any) -> Any:
    """The result of a coroutine that never waits; None for a MeshdError."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    except MeshdError:
        return None
    raise AssertionError("it waits")


def _answers() -> list[bytes]:
    return [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nrest",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 403 No\r\n\r\nbody until the end",
        b"HTTP/1.1 204 x\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic\r\n\r\n",
    ]


@target(seeds=_answers, dictionary=(*_HTTP, b"HTTP/1.1 200 ", b"HTTP/1.1 101 "))
def fuzz_http_client(data: bytes) -> None:
    """Answers to `fetch` and `upgrade`; cut in two they are the same answers."""
    for ask in (
        lambda parts: h1client.fetch(_Answers(parts), "GET", "/", [("Host", "a")], limit=100),
        lambda parts: h1client.upgrade(_Answers(parts), "POST", "/", [("Host", "a"), ("Upgrade", "x")]),
    ):
        whole = _finish(ask((data,)))
        cut = _finish(ask(parts_of(data)))
        assert (whole is None) == (cut is None)
        if whole is not None:
            assert (whole.status, whole.headers, whole.body[:100]) == (cut.status, cut.headers, cut.body[:100])


@target(seeds=_requests, dictionary=_HTTP)
def fuzz_http_message(data: bytes) -> None:
    with contextlib.suppress(WireError):
        read_request(data)


def _node_calls() -> list[bytes]:
    calls = (
        ("GET /debug/health", b""),
        ("POST /netmap", b'{"omitFields":["a"],"candidate":{"Node":null}}'),
        ("POST /netmap", b'{"candidate":' + b"[" * 1200),
        ("POST /debug/component-logging?component=x&secs=5", b""),
        ("GET /posture/identity?hwaddrs=true", b""),
        ("PATCH /prefs", b'{"HostnameSet":true,"Hostname":"x"}'),
        ("GET /debug/prefs", b""),
        ("GET /echo", b""),
    )
    return [
        f"{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body for line, body in calls
    ]


class _CalledNode:
    """What server calls are about, as little of it as they can be answered with."""

    def prefs(self) -> dict[str, Any]:
        return {}

    def metrics(self) -> str:
        return ""

    def netmap(self) -> dict[str, Any] | None:
        return {"a": 1}

    def candidate_netmap(self, message: bytes) -> dict[str, Any]:
        return {}

    def health(self) -> dict[str, Any]:
        return {}

    def stacks(self) -> str:
        return ""

    def posture(self, *, addresses: bool) -> dict[str, Any]:
        return {}

    async def log_component(self, component: str, seconds: int) -> None:
        assert seconds >= -(10**12)

    async def edit_prefs(self, masked: Any) -> dict[str, Any]:
        assert isinstance(masked, dict)
        return {}


@target(seeds=_node_calls, dictionary=_HTTP, limit=1600)
def fuzz_node_call(data: bytes) -> None:
    answer = _finish(answer_call(_CalledNode(), data))
    assert answer.startswith(b"HTTP/1.1 ")


# -- HTTP/2


def _h2_requests() -> list[bytes]:
    out = []
    for steps in range(4):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        fields = [(":method", "POST"), (":path", "/machine/map"), (":scheme", "https"), (":authority", "a")]
        client.send_headers(1, fields, end_stream=steps == 0)
        if steps:
            client.send_data(1, b"body", end_stream=steps != 3)
        if steps == 2:
            client.send_headers(3, fields)
            client.increment_flow_control_window(100)
            client.ping(b"12345678")
            client.reset_stream(3)
            client.close_connection()
        out.append(client.data_to_send())
    settings = b"\0\0\6\4\0\0\0\0\0\0\4\0\0\0\1"
    windows = b"\0\0\4\x08\0\0\0\0\1\x7f\xff\xff\xff" + b"\0\0\5\2\0\0\0\0\1\0\0\0\0\0"
    return [*out, out[0] + settings, out[1] + windows, out[0] + b"\0\0\1\x09\4\0\0\0\1\x82"]


_FRAMES = tuple(b"\0\0\0" + bytes([kind, flags]) + b"\0\0\0\1" for kind in range(10) for flags in (0, 1, 4, 5))


@target(seeds=_h2_requests, dictionary=_FRAMES)
def fuzz_h2_server(data: bytes) -> None:
    def answer(stream: H2Stream) -> None:
        stream.respond(200, stream.body or b"x" * 100)

    async def live() -> None:
        closed: list[bool] = []
        server = H2Server(lambda data: None, lambda: closed.append(True), answer)
        server.start()
        for part in parts_of(data):
            server.data_received(part)
        server.set_writable(False)
        server.set_writable(True)
        server.connection_lost()
        assert not server.streams
        assert not server._held

    BENCH.run(live)


@target(seeds=_h2_requests, dictionary=_FRAMES)
def fuzz_h2_frame_guard(data: bytes) -> None:
    """Whatever the cuts, the verdict is the same."""
    whole = FrameGuard().allows(data)
    guard = FrameGuard()
    first, second = parts_of(data)
    assert (guard.allows(first) and guard.allows(second)) == whole


def _data_frames() -> list[bytes]:
    bodies = [b"a", b"bb", b"", b"c" * 40]
    run = b"".join(len(body).to_bytes(3, "big") + b"\0\0\0\0\0\1" + body for body in bodies)
    return [run, run + run[:5], run + b"\0\0\1\0\1\0\0\0\1x" + run]


def _bodies(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """What each run of frames of one kind carries, and the frame that is not whole."""
    found: list[tuple[bytes, bytes]] = []
    while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
        end = 9 + int.from_bytes(data[:3], "big")
        kind, body = data[3:9], data[9:end]
        if found and kind.startswith(b"\0\0") and found[-1][0] == kind and body and found[-1][1]:
            body = found.pop()[1] + body
        found.append((kind, body))
        data = data[end:]
    return found, data


@target(seeds=_data_frames, dictionary=_FRAMES)
def fuzz_h2_data_merger(data: bytes) -> None:
    """Nothing changes but where DATA frames end, and nothing but the part of a header is held back."""
    merger = DataMerger(64)
    made = b"".join(merger.feed(part) for part in parts_of(data))
    before, cut = _bodies(data)
    after, rest = _bodies(made)
    assert after == before
    assert cut.startswith(rest)
    assert len(cut) - len(rest) < 9


def _h2_answers() -> list[bytes]:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":path", "/"), (":scheme", "https"), (":authority", "a")])
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200"), ("a", "b")])
    begun = server.data_to_send()
    server.send_data(1, b"hello", end_stream=True)
    body = server.data_to_send()
    server.ping(b"12345678")
    server.close_connection()
    rest = server.data_to_send()
    push = b"\0\0\5\5\4\0\0\0\1\0\0\0\2\x88"
    return [begun, begun + body, begun + body + rest, begun + push, begun + b"\0\0\4\3\0\0\0\0\1\0\0\0\x08", rest]


class _LateAnswers(_Answers):
    """Gives its input after a turn of the loop, so that the request is out before."""

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return await super().read()


@target(seeds=_h2_answers, dictionary=_FRAMES)
def fuzz_h2_client(data: bytes) -> None:
    """A request ends: with an answer, or with a ConnectionError."""

    async def live() -> None:
        client = H2Client(_LateAnswers(parts_of(data)), "a")
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(client.request("POST", "/", body=b"x" * 40, limit=100), 10)
        assert not client.open_exchanges
        client.close()

    BENCH.run(live)


# -- SOCKS


@target(
    seeds=lambda: [
        b"\5\1\0\5\1\0\1\x7f\0\0\1\0\x50rest",
        b"\5\2\0\2\5\1\0\3\4host\0\x50",
        b"\5\1\0\5\1\0\4" + bytes(16) + b"\0\x50",
        b"\5\1\2",
        b"\4\1",
        b"\5\1\0\5\3\0\1\x7f\0\0\1\0\x50",
    ]
)
def fuzz_socks_messages(data: bytes) -> None:
    readers: tuple[Callable[[bytes], tuple[Any, int] | None], ...] = (socks.decode_greeting, socks.decode_request)
    for read in readers:
        with contextlib.suppress(WireError):
            found = read(data)
            assert found is None or (0 < found[1] <= len(data) and read(data[: found[1]]) == found)


_PROXIED = [
    b"\5\1\0\5\1\0\1\x7f\0\0\1\0\x50rest",
    b"\5\1\0\5\1\0\3\4host\0\x50",
    b"\5\1\0\5\2\0\1\1\1\1\1\0\1",
    b"CONNECT host:443 HTTP/1.1\r\nHost: host\r\n\r\nrest",
    b"CONNECT [fd7a::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://user@host:8080/a?b HTTP/1.1\r\nHost: x\r\nConnection: x-a\r\nX-A: 1\r\nTE: a\r\n\r\n",
    b"POST http://[::1]/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT []:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://a:" + b"9" * 4400 + b"/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
]
_URLS = (b"http://", b"://", b"@", b"[", b"]", b":0", b":99999", b"//")


@target(seeds=lambda: _PROXIED, dictionary=(*_HTTP, *_URLS), limit=4600)
def fuzz_proxy_connection(data: bytes) -> None:
    """Both kinds of proxy at one port. What is dialled answers, refuses, or says nothing."""

    async def dial(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert host
        assert 0 <= port <= 65535
        if port & 1:
            raise OSError(113, "no")
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        wire = Wire(protocol)
        if port & 2:
            reader.feed_data(_answers()[port // 4 % 6])
        reader.feed_eof()
        return reader, asyncio.StreamWriter(wire, protocol, reader, asyncio.get_running_loop())

    async def live() -> None:
        listener = ProxyListener(either(socks5(dial), http_proxy(dial)), "--x")
        await Wire(asyncio.StreamReaderProtocol(asyncio.StreamReader(), listener._accept)).feed(data)

    BENCH.run(live)
