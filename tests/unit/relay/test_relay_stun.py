"""The STUN server over a real socket."""

from __future__ import annotations

import asyncio

from meshd.relay.stun import StunServer
from meshd.wire.stun import decode_response, encode_request


class _Asker(asyncio.DatagramProtocol):
    def __init__(self):
        self.answers = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.answers.put_nowait(data)


def test_stun_server_answers_requests_and_ignores_everything_else():
    async def whole():
        server = StunServer()
        await server.start("127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        transport, asker = await loop.create_datagram_endpoint(_Asker, remote_addr=("127.0.0.1", server.port))
        request = encode_request(b"123456789012")
        for bad in (b"", b"x" * 40, request[:-1], request[:-1] + b"\x00", request + b"\x00"):
            transport.sendto(bad)
        transport.sendto(request)
        async with asyncio.timeout(5):
            txid, source = decode_response(await asker.answers.get())
        assert txid == b"123456789012"
        assert str(source) == "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
        assert (server.answered, asker.answers.qsize()) == (1, 0)
        assert server.ignored >= 4
        transport.close()
        server.close()

    asyncio.run(whole())
