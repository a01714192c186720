"""Header parsing and the Internet checksum."""

from __future__ import annotations

import struct

from perf.micro.harness import Case, loops, run

TCP = struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0x50, 16, 0, 0, 0)
IP4 = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, bytes([100, 64, 0, 1]), bytes([100, 64, 0, 2])) + TCP
IP6 = struct.pack("!IHBB16s16s", 6 << 28, 20, 6, 64, bytes(15) + b"\1", bytes(15) + b"\2") + TCP


def cases() -> list[Case]:
    found: list[Case] = [("parse ipv4 tcp", loops.parse, (IP4,)), ("parse ipv6 tcp", loops.parse, (IP6,))]
    data = bytes(range(256)) * 256
    found += [(f"checksum {size}", loops.checksum, (data[:size],)) for size in (20, 40, 128, 1280, 1420, 65535)]
    return found


if __name__ == "__main__":
    run(cases())
