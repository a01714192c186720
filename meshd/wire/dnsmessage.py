"""DNS messages (RFC 1035 4.1): one question, and answers that are addresses or names."""

from __future__ import annotations

import struct
from typing import NamedTuple

from meshd.base.errors import WireError

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "WKS": 11, "PTR": 12, "HINFO": 13, "MINFO": 14, "MX": 15, "TXT": 16,
    "AAAA": 28, "SRV": 33, "OPT": 41, "ALL": 255,
}  # fmt: skip
A, PTR, AAAA, ANY = TYPES["A"], TYPES["PTR"], TYPES["AAAA"], TYPES["ALL"]
SUCCESS, SERVER_FAILURE, NAME_ERROR = 0, 2, 3
CLASS_IN = 1

_HEADER = struct.Struct("!6H")
_RESPONSE, _AUTHORITATIVE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0100, 0x0080
_MAX_LABEL, _MAX_NAME = 63, 255


class Record(NamedTuple):
    """One answer; ``data`` is a packed address or an encoded name. ``ttl`` is seconds."""

    type: int
    ttl: int
    data: bytes


def encode_name(name: str) -> bytes:
    """A name in labels, lower case kept; WireError when it cannot be one."""
    encoded = b""
    for label in name.removesuffix(".").split(".") if name not in ("", ".") else ():
        try:
            raw = label.encode("ascii")
        except UnicodeEncodeError:
            raise WireError("a DNS name must be ASCII") from None
        if not 0 < len(raw) <= _MAX_LABEL:
            raise WireError("a label of a DNS name has 1 to 63 characters")
        encoded += bytes([len(raw)]) + raw
    if len(encoded) >= _MAX_NAME:
        raise WireError("a DNS name has at most 254 characters")
    return encoded + b"\0"


def encode_query(number: int, name: str, kind: int) -> bytes:
    """A question that may be asked of any resolver."""
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0) + _question(name, kind)


def encode_answer(number: int, name: str, kind: int, code: int, records: list[Record]) -> bytes:
    """An authoritative answer to ``encode_query`` of the same arguments."""
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_DESIRED | _RECURSION_AVAILABLE | code
    owner = encode_name(name)
    body = b"".join(
        owner + struct.pack("!HHIH", record.type, CLASS_IN, record.ttl, len(record.data)) + record.data
        for record in records
    )
    return _HEADER.pack(number, flags, 1, len(records), 0, 0) + _question(name, kind) + body


def answers(query: bytes, message: bytes) -> bool:
    """Whether ``message`` is a response to this query: same number, same question."""
    if len(message) < len(query) or message[:2] != query[:2] or not message[2] & 0x80:
        return False
    questions = struct.unpack_from("!H", message, 4)[0]
    return questions == 1 and message[_HEADER.size : len(query)].lower() == query[_HEADER.size :].lower()


def _question(name: str, kind: int) -> bytes:
    return encode_name(name) + struct.pack("!HH", kind, CLASS_IN)
