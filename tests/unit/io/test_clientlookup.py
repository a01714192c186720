"""Names that programs of this host want looked up."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from meshd.io.clientlookup import MAX_LOOKUPS, ClientLookups
from tests.unit.threads import no_room_for_threads


def test_client_lookups_are_few_at_a_time_and_leave_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when those who asked have left: the resolver goes on for them."""
    answered = threading.Event()
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        if host != "localhost":
            answered.wait(20)
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("meshd.io.clientlookup.socket.getaddrinfo", resolve)

    async def run() -> None:
        lookups = ClientLookups()
        slow = [asyncio.create_task(lookups.look_up(f"x{n}", 1)) for n in range(MAX_LOOKUPS + 5)]
        while len(asked) < MAX_LOOKUPS:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
        late = asyncio.create_task(lookups.look_up("localhost", 2))
        await asyncio.sleep(0.01)
        assert len(asked) == MAX_LOOKUPS
        assert not late.done()
        answered.set()
        assert await asyncio.wait_for(late, 20) == [(socket.AF_INET, ("127.0.0.1", 2))]

    asyncio.run(run())


def test_client_connection_tries_each_address_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = [(socket.AF_INET, 1, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr("meshd.io.clientlookup.socket.getaddrinfo", lambda *_, **__: found)
        async with server:
            for host in ("name", "127.0.0.1"):
                reader, writer = await ClientLookups().connect(host, port)
                assert await reader.read() == b""
                writer.close()
            found[:] = found[:1]
            with pytest.raises(ConnectionRefusedError):
                await ClientLookups().connect("name", port)

    asyncio.run(run())


@pytest.mark.parametrize("name", ["a\0b", "a" * 70 + ".test", "a..test"])
def test_client_lookup_of_what_is_no_name_is_an_os_error(name: str) -> None:
    with pytest.raises(OSError, match="(?i)name"):
        asyncio.run(ClientLookups().look_up(name, 1))


def test_client_lookup_without_a_thread_is_an_error_and_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        lookups = ClientLookups()
        with no_room_for_threads(monkeypatch):
            for _ in range(MAX_LOOKUPS + 1):
                with pytest.raises(OSError, match="no thread"):
                    await lookups.look_up("localhost", 1)
        assert await lookups.look_up("127.0.0.1", 1) == [(socket.AF_INET, ("127.0.0.1", 1))]

    asyncio.run(run())
