"""Reading the answers in a DNS message (RFC 1035 4.1), as far as people want to see them."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

RCODES = {
    0: "RCodeSuccess",
    1: "RCodeFormatError",
    2: "RCodeServerFailure",
    3: "RCodeNameError",
    4: "RCodeNotImplemented",
    5: "RCodeRefused",
}
TYPES = {
    1: "TypeA",
    2: "TypeNS",
    5: "TypeCNAME",
    6: "TypeSOA",
    11: "TypeWKS",
    12: "TypePTR",
    13: "TypeHINFO",
    14: "TypeMINFO",
    15: "TypeMX",
    16: "TypeTXT",
    28: "TypeAAAA",
    33: "TypeSRV",
    41: "TypeOPT",
    65: "TypeHTTPS",
}
CLASSES = {1: "ClassINET", 2: "ClassCSNET", 3: "ClassCHAOS", 4: "ClassHESIOD", 255: "ClassANY"}

_MAX_JUMPS = 64
"""Compression pointers followed for one name: more is a loop, or somebody who wants to waste our time."""
_MAX_NAME = 255


class Answer(NamedTuple):
    """One record of the answer section, everything as text but the TTL (seconds)."""

    name: str
    ttl: int
    rrclass: str
    type: str
    body: str


def read_answers(message: bytes) -> tuple[str, list[Answer]]:
    """The response code and the answers. ValueError when it is no DNS message."""
    if len(message) < 12:
        raise ValueError("too short for a DNS message")
    flags, questions, answers = struct.unpack_from("!2x3H", message)
    offset = 12
    for _ in range(questions):
        _, offset = _name(message, offset)
        offset += 4
    found = []
    for _ in range(answers):
        answer, offset = _answer(message, offset)
        found.append(answer)
    return RCODES.get(flags & 15, str(flags & 15)), found


def _answer(message: bytes, offset: int) -> tuple[Answer, int]:
    name, offset = _name(message, offset)
    if offset + 10 > len(message):
        raise ValueError("a record ends too early")
    kind, rrclass, ttl, length = struct.unpack_from("!HHIH", message, offset)
    start = offset + 10
    if start + length > len(message):
        raise ValueError("the data of a record end too early")
    try:
        body = _body(message, kind, start, length)
    except (IndexError, struct.error):
        raise ValueError("the data of a record are cut off") from None
    return Answer(name, ttl, CLASSES.get(rrclass, str(rrclass)), TYPES.get(kind, str(kind)), body), start + length


def _body(message: bytes, kind: int, start: int, length: int) -> str:
    data = message[start : start + length]
    if kind == 1 and length == 4:
        return socket.inet_ntop(socket.AF_INET, data)
    if kind == 28 and length == 16:
        return socket.inet_ntop(socket.AF_INET6, data)
    if kind in (2, 5, 12):
        return _name(message, start)[0]
    if kind == 15:
        return f"{_name(message, start + 2)[0]} (Priority={struct.unpack_from('!H', data)[0]})"
    if kind == 33:
        priority, weight, port = struct.unpack_from("!3H", data)
        return f"Target={_name(message, start + 6)[0]}, Port={port}, Priority={priority}, Weight={weight}"
    if kind == 16:
        return f"[{' '.join(_strings(data))}]"
    return data.hex()


def _strings(data: bytes) -> list[str]:
    """The character strings of a TXT record, quoted."""
    found = []
    while data:
        end = 1 + data[0]
        text = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in data[1:end])
        found.append(f'"{text}"')
        data = data[end:]
    return found


def _name(message: bytes, offset: int) -> tuple[str, int]:
    """A name, and where the bytes after it begin (RFC 1035 4.1.4)."""
    labels: list[str] = []
    after, jumps, size = -1, 0, 0
    while True:
        if offset >= len(message):
            raise ValueError("a name ends too early")
        length = message[offset]
        if length >= 0xC0:
            if offset + 1 >= len(message) or jumps >= _MAX_JUMPS:
                raise ValueError("a name is not properly compressed")
            after = offset + 2 if after < 0 else after
            jumps += 1
            offset = (length & 0x3F) << 8 | message[offset + 1]
            continue
        if length > 63 or offset + 1 + length > len(message):
            raise ValueError("a name has a label of impossible length")
        offset += 1
        if length == 0:
            return ".".join(labels) + ".", offset if after < 0 else after
        size += length + 1
        if size > _MAX_NAME:
            raise ValueError("a name is too long")
        labels.append("".join(_character(b) for b in message[offset : offset + length]))
        offset += length


def _character(byte: int) -> str:
    """A byte of a label; what could confuse a reader is escaped as master files do (RFC 1035 5.1)."""
    if byte in b".\\":
        return "\\" + chr(byte)
    return chr(byte) if 32 < byte < 127 else f"\\{byte:03d}"
