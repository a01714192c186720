"""Plain-Python twin of meshd._fast.aead: ChaCha20-Poly1305 straight from RFC 8439."""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_PRIME = (1 << 130) - 5


def _quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & _MASK
        s[z] ^= s[x]
        s[z] = ((s[z] << turn) | (s[z] >> (32 - turn))) & _MASK


def chacha20_block(key: bytes, block: int, nonce: bytes) -> bytes:
    start = [
        *struct.unpack("<4I", b"expand 32-byte k"),
        *struct.unpack("<8I", key),
        block,
        *struct.unpack("<3I", nonce),
    ]
    s = start.copy()
    for _ in range(10):
        for i in range(4):
            _quarter(s, i, i + 4, i + 8, i + 12)
        for i in range(4):
            _quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((x + y) & _MASK for x, y in zip(s, start, strict=True)))


def chacha20(key: bytes, block: int, nonce: bytes, data: bytes) -> bytes:
    stream = b"".join(chacha20_block(key, block + i, nonce) for i in range((len(data) + 63) // 64))
    return bytes(x ^ y for x, y in zip(data, stream, strict=False))


def poly1305(key: bytes, data: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\1", "little")) * r % _PRIME
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def seal_nonce(key: bytes, nonce: bytes, plain: bytes, ad: bytes = b"") -> bytes:
    sealed = chacha20(key, 1, nonce, plain)
    covered = _pad(ad) + _pad(sealed) + struct.pack("<QQ", len(ad), len(sealed))
    return sealed + poly1305(chacha20_block(key, 0, nonce)[:32], covered)


def seal(key: bytes, counter: int, plain: bytes) -> bytes:
    return seal_nonce(key, struct.pack("<IQ", 0, counter), plain)


def open_(key: bytes, counter: int, sealed: bytes) -> bytes | None:
    if len(sealed) < 16:
        return None
    plain = chacha20(key, 1, struct.pack("<IQ", 0, counter), sealed[:-16])
    return plain if seal(key, counter, plain) == sealed else None


def padding(n: int, mtu: int) -> int:
    if mtu == 0:
        return -n % 16
    last = n if n <= mtu else n % mtu
    return min(-(-last // 16) * 16, mtu) - last


def seal_transport(key: bytes, receiver: int, counter: int, packet: bytes, mtu: int) -> bytes:
    return struct.pack("<IIQ", 4, receiver, counter) + seal(key, counter, packet + bytes(padding(len(packet), mtu)))
