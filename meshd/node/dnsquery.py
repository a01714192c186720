"""One DNS question, answered as this node would: from the network's names, or by the resolver in charge."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from typing import Any

import msgspec

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.core import meshnames
from meshd.core.netmap import Netmap
from meshd.host.resolvconf import read_resolv_conf
from meshd.wire import dnsmessage
from meshd.wire.control import Resolver, encode

log = get_logger(__name__)
JSON = dict[str, Any]

PATIENCE_S = 2.5  # of one resolver
MAX_RESOLVERS = 4
OWN_NUMBER = 1  # of a message that never leaves this process


async def query_json(netmap: Netmap | None, name: str, kind: str) -> JSON:
    """``{Bytes, Resolvers}``: the response message, and who would be asked. MeshdError when nobody answers."""
    number = dnsmessage.TYPES.get(kind.strip().upper() or "A")
    if number is None:
        raise MeshdError(f"unknown DNS message type: {kind.strip().upper()[:20]}", code="invalid")
    resolvers = meshnames.resolvers_for(netmap.dns if netmap is not None else None, name, _system())
    try:
        own = meshnames.answer(netmap, name, number) if netmap is not None else None
        if own is not None:
            message = dnsmessage.encode_answer(OWN_NUMBER, name, number, *own)
        else:
            message = await _ask_all(resolvers, dnsmessage.encode_query(secrets.randbelow(1 << 16), name, number))
    except WireError as error:
        raise MeshdError(str(error), code="internal") from None
    shown = [msgspec.json.decode(encode(resolver)) for resolver in resolvers]
    return {"Bytes": b64encode(message).decode(), "Resolvers": shown or None}


def _system() -> tuple[str, ...]:
    try:
        return read_resolv_conf().nameservers
    except OSError as error:
        log.info("resolv_conf_unreadable", extra=kv(reason=error.strerror))
        return ()


async def _ask_all(resolvers: list[Resolver], query: bytes) -> bytes:
    addresses = [address for resolver in resolvers if (address := _address(resolver.addr)) is not None]
    if not addresses:
        raise MeshdError("no resolver is known that speaks plain DNS", code="internal")
    for address in addresses[:MAX_RESOLVERS]:
        answer = await _ask(address, query)
        if answer is not None:
            return answer
    raise MeshdError("no resolver answered: " + ", ".join(map(str, addresses[:MAX_RESOLVERS])), code="internal")


def _address(text: str) -> AddrPort | None:
    try:
        return AddrPort(parse_ip(text), 53)
    except ValueError:
        try:
            return AddrPort.parse(text)
        except ValueError:
            return None


async def _ask(address: AddrPort, query: bytes) -> bytes | None:
    """The response of one resolver; None when it gives none in time."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            del addr
            if not answered.done() and dnsmessage.answers(query, data):
                answered.set_result(data)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_exception(exc)

    try:
        remote = (str(address.ip), address.port)
        transport, _ = await loop.create_datagram_endpoint(Receiver, remote_addr=remote)
        try:
            transport.sendto(query)
            async with asyncio.timeout(PATIENCE_S):
                return await answered
        finally:
            transport.close()
    except (OSError, TimeoutError) as error:
        log.info("resolver_silent", extra=kv(addr=address, reason=error))
        return None
