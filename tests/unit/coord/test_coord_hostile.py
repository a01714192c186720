"""Garbage at every layer: the server answers or hangs up, and goes on."""

from __future__ import annotations

import asyncio
import os

import pytest

from meshd.testing.controlmachine import RequestFailed

pytestmark = pytest.mark.parametrize("run_coord", ["uvloop"], indirect=True)

HEAD = b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"


async def raw(coord, data, *, half=False):
    reader, writer = await asyncio.open_connection("127.0.0.1", coord.port)
    writer.write(data)
    if half:
        writer.write_eof()
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def alive(coord):
    machine = await coord.joined("alive")
    assert (await (await machine.stream()).next()).node is not None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/9\r\n\r\n", b"400"),
        (b"\x00\xff\x00\xff\r\n\r\n", b"400"),
        (b"GET /key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /key?v=9x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /key?v=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /key?" + b"a=1&" * 100 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40000 + b"\r\n\r\n", b"431"),
        (b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 70000, b"413"),
        (b"POST /verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", b"400"),
        (b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /ts2021 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", b"400"),
        (b"CONNECT /health HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST /verify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", b"417"),
        (b"HEAD /verify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", b"417"),
        (b"GET /register/<script> HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
def test_hostile_http_is_refused_with_a_status(run_coord, data, status):
    async def scenario(coord):
        answer = await raw(coord, data)
        assert answer.split(b" ")[1] == status
        assert b"Traceback" not in answer
        await alive(coord)

    run_coord(scenario)


def test_coord_whole_url_as_target_is_answered(run_coord):
    """RFC 9112 3.2.2: some clients send it to servers as they would to proxies."""

    async def scenario(coord):
        answer = await raw(coord, b"GET http://there:1/key?v=130 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.split(b" ")[1] == b"200"
        assert b"publicKey" in answer

    run_coord(scenario)


@pytest.mark.parametrize("handshake", [b"", b"!!!", b"\x87", b"AAAA", b"A" * 136, b"AHEB" + b"A" * 132, b"A" * 10000])
def test_hostile_handshake_is_refused(run_coord, handshake):
    async def scenario(coord):
        answer = await raw(
            coord,
            HEAD + b"Connection: close\r\nContent-Length: 0\r\nX-Tailscale-Handshake: " + handshake + b"\r\n\r\n",
            half=True,
        )
        assert answer.split(b" ")[1] == b"400"
        await alive(coord)

    run_coord(scenario)


def test_hostile_bytes_inside_noise_end_the_connection(run_coord):
    async def scenario(coord):
        for garbage in (b"\x04\x00\x20" + os.urandom(32), b"\x09\x00\x00", b"\x04\xff\xff", os.urandom(5000)):
            machine = await coord.machine()
            machine._writer.write(garbage)
            await asyncio.gather(machine._pump, return_exceptions=True)
        for plain in (os.urandom(500), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(300)):
            machine = await coord.machine()
            machine._writer.write(machine._cipher.seal_stream(plain))
            await asyncio.gather(machine._pump, return_exceptions=True)
        await alive(coord)

    run_coord(scenario)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/machine/register", b"", 400),
        ("/machine/register", b"nonsense", 400),
        ("/machine/register", b"[" * 5000, 400),
        ("/machine/register", b'{"Version":113,"NodeKey":"nodekey:zz"}', 400),
        ("/machine/register", b'{"Version":113.0}', 400),
        ("/machine/map", b"{}", 400),
        ("/machine/map", b'{"Version":113}', 404),
        ("/machine/map", b'{"Version":113,"Endpoints":["1.2.3.4:70000"]}', 400),
        ("/machine/unknown", b"{}", 404),
        ("/machine/register", b"x" * (1024 * 1024 + 1), 413),
    ],
)
def test_hostile_request_bodies_are_refused(run_coord, path, body, status):
    async def scenario(coord):
        machine = await coord.machine()
        with pytest.raises(RequestFailed) as caught:
            await machine.request(path, body)
        assert caught.value.status == status
        assert "Traceback" not in str(caught.value)
        assert not (await machine.register(coord.join_key)).error

    run_coord(scenario)


def test_hostile_rapid_reset_is_cut_off(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        for _ in range(400):
            stream_id = machine.send("/machine/map", b"{}" * 10)
            machine.cancel(stream_id)
        await asyncio.gather(machine._pump, return_exceptions=True)
        await alive(coord)

    run_coord(scenario)


def test_hostile_silent_connections_are_counted_and_closed_at_the_end(run_coord):
    async def scenario(coord):
        writers = []
        for first in (b"", b"G", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost:"):
            _, writer = await asyncio.open_connection("127.0.0.1", coord.port)
            writer.write(first)
            writers.append(writer)
        await alive(coord)
        assert coord.service._listener.connections >= 4
        for writer in writers:
            writer.close()

    run_coord(scenario)


def test_hostile_admin_lines_are_answered_with_errors(run_coord, options):
    async def scenario(coord):
        for line in (
            b"\n",
            b"x\n",
            b"[]\n",
            b'{"op":"nope"}\n',
            b'{"op":"nodes.delete"}\n',
            b'{"op":"users.create","args":{"name":""}}\n',
        ):
            reader, writer = await asyncio.open_unix_connection(str(options.state_dir / "admin.sock"))
            writer.write(line)
            answer = await reader.readline()
            assert answer.startswith(b'{"error":{"message":')
            writer.close()
        assert os.stat(options.state_dir / "admin.sock").st_mode & 0o777 == 0o600
        assert os.stat(options.state_dir / "coord.db").st_mode & 0o777 == 0o600

    run_coord(scenario)
