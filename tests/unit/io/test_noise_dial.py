"""Which ports a control URL leads to, and who wins the race between plain HTTP and TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate
from meshd.core.controladdress import ControlAddress, control_address
from meshd.io import noise
from meshd.io.dial import first_success
from meshd.io.noise import connect_noise
from meshd.testing.fakecontrol import FakeControl, Fault

MACHINE = MachinePrivate.generate()


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "plain", "tls", "authority"),
    [
        ("https://host.example", 80, 443, "host.example"),
        ("https://host.example/", 80, 443, "host.example"),
        ("https://host.example:8443", 80, 8443, "host.example:8443"),
        ("http://host.example", 80, 443, "host.example"),
        ("http://host.example:8080", 8080, 443, "host.example:8080"),
        ("http://10.0.0.1:8080", 8080, None, "10.0.0.1:8080"),
        ("http://192.168.1.1", 80, None, "192.168.1.1"),
        ("http://127.0.0.1:1", 1, None, "127.0.0.1:1"),
        ("http://[::1]:8080", 8080, None, "[::1]:8080"),
        ("http://localhost:8080", 8080, None, "localhost:8080"),
        ("http://192.0.2.300:8080", 8080, 443, "192.0.2.300:8080"),
        ("https://10.0.0.1", 80, 443, "10.0.0.1"),
        ("https://m\u00fcnchen.example:8443", 80, 8443, "xn--mnchen-3ya.example:8443"),
        ("http://[fe80::1%eth0]:8080", 8080, 443, "[fe80::1%eth0]:8080"),
    ],
)
def test_control_address_follows_the_port_table(url: str, plain: int, tls: int | None, authority: str) -> None:
    address = control_address(url)
    assert (address.plain_port, address.tls_port, address.authority) == (plain, tls, authority)


@pytest.mark.parametrize(
    "host",
    ["a b.example", "a\0b", "m\u00fc..example", "\u2028", "stra\u00dfe.example", "a@b@c", "x" * 64 + "\u00fc.example"],
)
def test_control_address_with_a_host_that_cannot_be_one_is_refused(host: str) -> None:
    with pytest.raises(MeshdError, match="is not the URL of a coordination server"):
        control_address(f"https://{host}")


def test_first_success_starts_the_next_as_soon_as_one_failed() -> None:
    async def main() -> None:
        order: list[str] = []

        async def fails() -> str:
            order.append("first")
            raise OSError("no")

        async def works() -> str:
            order.append("second")
            return "ok"

        assert await first_success([fails(), works()], 3600) == "ok"
        assert order == ["first", "second"]

    run(main)


def test_first_success_cancels_the_losers_and_never_starts_the_rest() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()
        started: list[int] = []

        async def hangs() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return "never"

        async def works(number: int) -> str:
            started.append(number)
            return "ok"

        assert await first_success([hangs(), works(1), works(2)], 0.0) == "ok"
        await cancelled.wait()
        assert started == [1]

    run(main)


def test_first_success_all_failing_raises_the_first() -> None:
    async def main() -> None:
        async def fails(text: str) -> str:
            raise OSError(text)

        with pytest.raises(OSError, match="one"):
            await first_success([fails("one"), fails("two")], 0.0)

    run(main)


def test_connect_noise_reaches_a_plain_server() -> None:
    async def main() -> None:
        async with FakeControl() as control:
            stream = await connect_noise(control_address(control.url), MACHINE, control.key.public(), 113)
            assert control.machines == [MACHINE.public()]
            assert control.versions == [113]
            stream.close()

    run(main)


def test_connect_noise_plain_failure_falls_back_to_the_other_port() -> None:
    """A middle box that breaks port 80 costs no time: the second way starts at once."""

    async def main() -> None:
        async with FakeControl(fault=Fault.UPGRADE_STATUS) as broken, FakeControl() as good:
            attempts: list[tuple[int, bool]] = []
            original = noise.open_stream

            async def open_plain(address: ControlAddress, port: int, *, tls: bool, verify: bool, planned: object = ()):
                attempts.append((port, tls))
                return await original(address, port, tls=False, verify=verify)

            noise.open_stream = open_plain
            try:
                address = replace(control_address(broken.url), plain_port=broken.port, tls_port=good.port)
                stream = await connect_noise(address, MACHINE, good.key.public(), 113)
                stream.close()
                assert attempts == [(broken.port, False), (good.port, True)]
                attempts.clear()
                stream = await connect_noise(address, MACHINE, good.key.public(), 113, skip_plain=True)
                stream.close()
                assert attempts == [(good.port, True)]
            finally:
                noise.open_stream = original

    run(main)


def test_connect_noise_error_is_the_one_that_got_furthest() -> None:
    async def main() -> None:
        async with (
            FakeControl(fault=Fault.EOF_AFTER_UPGRADE) as refuses,
            FakeControl(fault=Fault.UPGRADE_STATUS) as other,
        ):
            original = noise.open_stream

            async def open_plain(address: ControlAddress, port: int, *, tls: bool, verify: bool, planned: object = ()):
                return await original(address, port, tls=False, verify=verify)

            noise.open_stream = open_plain
            try:
                address = replace(control_address(other.url), plain_port=other.port, tls_port=refuses.port)
                with pytest.raises(MeshdError) as caught:
                    await connect_noise(address, MACHINE, MACHINE.public(), 113)
                assert caught.value.code == "control-noise-refused"
            finally:
                noise.open_stream = original

    run(main)


def test_connect_noise_no_tls_server_is_a_tls_error() -> None:
    async def main() -> None:
        async with FakeControl() as control:
            address = replace(control_address(control.url), plain_port=None, tls_port=control.port)
            with pytest.raises(MeshdError, match="no TLS connection") as caught:
                await connect_noise(address, MACHINE, control.key.public(), 113)
            assert caught.value.code == "tls"

    run(main)
