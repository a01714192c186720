"""A name server for tests: `python upstream.py ADDRESS [PORT]`. What it says of a name is in the name.

big.*   200 addresses, over UDP only that there are more       dead.*   nothing
coord.* 198.51.100.1
spoof.* wrong numbers, questions and sources before the truth   servfail.*   a failure
Everything else has the address 192.0.2.1. Prints a line for every question: udp or tcp, and the name.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

_TRUNCATED = 0x8380


def question_of(query: bytes) -> tuple[bytes, str]:
    labels, offset = [], 12
    while query[offset]:
        length = query[offset]
        labels.append(query[offset + 1 : offset + 1 + length].decode("latin-1"))
        offset += length + 1
    return query[12 : offset + 5], ".".join(labels)


def answer(query: bytes, count: int = 1, flags: int = 0x8180, last: int = 1) -> bytes:
    question, name = question_of(query)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4)
    network = [198, 51, 100] if name.startswith("coord") else [192, 0, 2]
    body = b"".join(record + bytes([*network, last + n]) for n in range(count))
    return query[:2] + struct.pack("!5H", flags, 1, count, 0, 0) + question + body


class Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        _, name = question_of(data)
        print("udp", name, flush=True)
        kind = name.partition(".")[0]
        if kind == "dead":
            return
        if kind == "big":
            self.transport.sendto(answer(data, 0, _TRUNCATED), addr)
            return
        if kind == "servfail":
            self.transport.sendto(answer(data, 0, 0x8182), addr)
            return
        if kind == "spoof":
            evil = answer(data, last=66)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
                elsewhere.sendto(evil, addr)
            self.transport.sendto(bytes([evil[0] ^ 1]) + evil[1:], addr)
            self.transport.sendto(evil[:13] + b"x" + evil[14:], addr)
        self.transport.sendto(answer(data), addr)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        _, name = question_of(query)
        print("tcp", name, flush=True)
        if not name.startswith("dead"):
            count = 200 if name.startswith("big") else 0 if name.startswith("servfail") else 1
            data = answer(query, count, 0x8180 if count else 0x8182)
            writer.write(len(data).to_bytes(2, "big") + data)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(address: str, port: int) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=(address, port))
    server = await asyncio.start_server(serve, address, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 53))
