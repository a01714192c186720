"""ChaCha20-Poly1305 per packet: every back end, both directions, sizes from a keepalive to a full packet."""

from __future__ import annotations

from meshd._fast import aead
from perf.micro.harness import Case, loops, run

KEY = bytes(range(32))
SIZES = (0, 64, 256, 512, 1024, 1280, 1420)


def cases() -> list[Case]:
    found: list[Case] = []
    for name in aead.available():
        cipher = aead.Cipher(name)
        for size in SIZES:
            sealed = bytearray(size + 16)
            cipher.seal_into(sealed, bytes(size), 7, KEY)
            found.append((f"seal {size} {name}", loops.seal, (cipher, size)))
            found.append((f"open {size} {name}", loops.open_, (cipher, bytes(sealed), 7, KEY)))
    return found


if __name__ == "__main__":
    run(cases())
