"""What an attacker may send: packets inside a valid session, datagrams, and records of a TUN device.

Everything comes from one random generator, so that a run is repeated by its seed.
"""

from __future__ import annotations

import struct
from random import Random

from meshd._fast import segment
from meshd._fast.aead import Cipher
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, A6, B4, B6, icmp, ipv4, ipv6, tcp, udp

SERVICE = bytes([100, 100, 100, 100])
LARGEST_DATAGRAM = 65507
LARGEST_PLAIN = LARGEST_DATAGRAM - 32
PROTOCOLS = [0, 1, 2, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 99, 132, 253, 255]
EDGES = [0, 1, 2, 19, 20, 21, 39, 40, 41, 127, 128, 255, 256, 575, 576, 1279, 1280, 1281, 32767, 65534, 65535]


class Hostile:
    """Makes one thing after the other; ``inward`` packets claim to come from peer A, others go to it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._cipher = Cipher()
        self._flows = 0

    def number(self, limit: int) -> int:
        """Often a limit of something, else anything."""
        random = self.random
        if random.random() < 0.7:
            return min(random.choice(EDGES), limit)
        return random.randrange(limit + 1)

    def size(self, limit: int) -> int:
        """Mostly small."""
        return self.random.randrange(min(limit, 80) + 1) if self.random.random() < 0.9 else self.number(limit)

    def damage(self, data: bytes) -> bytes:
        """A few bytes changed, cut off, added."""
        random, out = self.random, bytearray(data)
        for _ in range(random.randrange(4)):
            if out:
                out[random.randrange(min(len(out), 64))] = random.choice((0, 255, random.randrange(256)))
        if random.random() < 0.2 and out:
            del out[random.randrange(len(out)) :]
        if random.random() < 0.2:
            out += random.randbytes(self.size(1500))
        return bytes(out)

    # -- packets

    def transport(self, protocol: int) -> bytes:
        random = self.random
        ports = random.choice(((4000, 5000), (random.randrange(65536), random.randrange(65536))))
        match random.randrange(5):
            case 0:
                return tcp(*ports, random.choice((0x02, 0x10, 0x12, 0x18, random.randrange(256))))
            case 1:
                return udp(*ports, random.randbytes(self.size(2000)))
            case 2:
                return icmp(random.choice((0, 3, 8, 11, 128, 129, random.randrange(256))), 0, random.randrange(4))
            case 3:
                return struct.pack("!BBH", random.choice(PROTOCOLS), self.number(255), 0) + self.transport(6)
            case _:
                return random.randbytes(self.size(3000))

    def packet(self, *, inward: bool) -> bytes:
        """One IP packet, right or wrong in its lengths, fragments, extension headers."""
        random = self.random
        protocol = random.choice(PROTOCOLS)
        body = self.transport(protocol)
        if random.random() < 0.02:
            body += random.randbytes(65495 - len(body) - random.choice((0, 1, 20, 32, 60)))
        if random.random() < 0.5:
            ours, theirs = (B4, A4) if inward else (A4, B4)
            others = (SERVICE, b"\xe0\0\0\1", b"\xa9\xfe\1\1", random.randbytes(4))
            destination = random.choice((ours, ours, ours, *others))
            source = theirs if random.random() < 0.9 else random.randbytes(4)
            fragment = random.choice((0, 0, 0, 0x2000, 0x4000, 1, 9, 10, 0x1FFF, 0x3FFF, random.randrange(65536)))
            out = bytearray(ipv4(protocol, body, source, destination, fragment))
            if random.random() < 0.3:
                out[0] = 0x40 | random.randrange(16)
        else:
            ours, theirs = (B6, A6) if inward else (A6, B6)
            destination = random.choice((ours, ours, ours, b"\xff\2" + bytes(14), random.randbytes(16)))
            source = theirs if random.random() < 0.9 else random.randbytes(16)
            for _ in range(random.choice((0, 0, 1, 2, 8))):
                body = struct.pack("!BB", protocol, self.number(255)) + random.randbytes(6) + body
                protocol = random.choice((0, 43, 44, 51, 60))
            out = bytearray(ipv6(protocol, body[:65495], source, destination))
        if random.random() < 0.3 and len(out) > 6:
            at = 2 if out[0] >> 4 == 4 else 4
            out[at : at + 2] = struct.pack("!H", self.number(65535))
        return self.damage(bytes(out)) if random.random() < 0.3 else bytes(out)

    def flow(self) -> list[bytes]:
        """Packets that belong together, as receive offload likes them, or nearly so."""
        random = self.random
        version = random.choice((4, 6))
        payload = random.randbytes(self.size(20000) + 1)
        size = random.choice((1, 100, 536, 1240, 1400))
        header, packet = (
            offload.super_tcp(payload[: size * 70], size, version=version)
            if random.random() < 0.7
            else offload.super_udp(payload[: size * 70], size, version=version)
        )
        packets = segment.split(header, packet)
        if random.random() < 0.3:
            random.shuffle(packets)
        return [self.damage(p) if random.random() < 0.03 else p for p in packets]

    # -- datagrams

    def sealed(self, packet: bytes, index: int, counter: int, key: bytes) -> bytes:
        """A transport message around exactly these bytes, with some padding or none."""
        mtu = self.random.choice((0, 1280))
        return self._cipher.seal_transport(packet[:LARGEST_PLAIN], index, counter, key, mtu)[:LARGEST_DATAGRAM]

    def datagram(self) -> bytes:
        """No transport message that opens."""
        random = self.random
        match random.randrange(5):
            case 0:
                return random.randbytes(self.size(LARGEST_DATAGRAM))
            case 1:
                return struct.pack("<I", random.choice((1, 2, 3, 4, 5, 260))) + random.randbytes(self.size(2000))
            case 2:
                return b"TS\xf0\x9f\x92\xac" + random.randbytes(self.size(1500))
            case 3:
                return struct.pack("<IIQ", 4, random.choice((0xA0, 0xB0, 0)), self.number(65535)) + random.randbytes(
                    self.size(1500)
                )
            case _:
                return b"\1\1\0\0\x21\x12\xa4\x42" + random.randbytes(self.size(100))

    # -- records of a TUN device

    def record(self) -> bytes:
        """A virtio-net header that need not fit, and a packet."""
        random = self.random
        if random.random() < 0.3:
            make = random.choice((offload.super_tcp, offload.super_udp))
            payload = random.randbytes(self.size(60000))
            header, packet = make(payload, random.choice((1, 7, 536, 1240, 65535)), version=random.choice((4, 6)))
            if random.random() < 0.5:
                header = self.damage(header).ljust(10, b"\0")[:10]
            return (header + packet)[: 65536 + 64]
        header = struct.pack(
            "=BBHHHH",
            random.choice((0, 1, 255)),
            random.choice((0, 0, 1, 3, 4, 5, 0x81, 0x84, random.randrange(256))),
            self.number(65535),
            self.number(65535),
            random.choice((0, 20, 34, 40, self.number(65535))),
            random.choice((6, 16, self.number(65535))),
        )
        return header + self.packet(inward=False)[:65535] if random.random() < 0.97 else header[: self.size(9) + 1]
