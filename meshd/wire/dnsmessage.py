"""DNS messages (RFC 1035 4.1, RFC 6891): questions, and the answers that this node gives itself.

Answers of others are handled as bytes; `meshd.wire.dnsresponse` looks into them as far as must be.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from meshd.base.errors import WireError

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "WKS": 11, "PTR": 12, "HINFO": 13, "MINFO": 14, "MX": 15, "TXT": 16,
    "AAAA": 28, "SRV": 33, "OPT": 41, "ALL": 255,
}  # fmt: skip
A, PTR, AAAA, ANY = TYPES["A"], TYPES["PTR"], TYPES["AAAA"], TYPES["ALL"]
SOA, OPT = TYPES["SOA"], TYPES["OPT"]
TRANSFERS = (251, 252)  # IXFR and AXFR: many messages make one answer
SUCCESS, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)
BAD_VERSION = 16  # extended: 12 bits, the upper eight in the OPT record
CLASS_IN = 1

HEADER = struct.Struct("!6H")
RESPONSE, AUTHORITATIVE, TRUNCATED, RECURSION_DESIRED, RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
OPCODE, CODE = 0x7800, 0x000F
DNSSEC_OK = 0x8000
MIN_PAYLOAD = 512  # bytes that every receiver takes over UDP (RFC 1035 2.3.4)
OWN_PAYLOAD = 1232  # bytes that pass every IPv6 path in one piece
RECORD = struct.Struct("!HHIH")
_MAX_LABEL, _MAX_NAME = 63, 255
_POINTER = 0xC0
_USUAL = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_ESCAPED = {byte: "\\" + chr(byte) for byte in b'.\\"();@$'} | {
    byte: f"\\{byte:03d}" for byte in (*range(33), *range(127, 256))
}


class Record(NamedTuple):
    """One answer; ``data`` is a packed address or an encoded name. ``ttl`` is seconds."""

    type: int
    ttl: int
    data: bytes


class Query(NamedTuple):
    """A question that came in. ``name`` is lower case, without a dot at its end, with bytes that are no letters of
    names escaped as in master files (RFC 1035 5.1); ``question`` are the bytes of the question as they came.
    ``payload`` is how many bytes of answer the asker takes over UDP, 0 when it did not say; ``opt_at`` is where its
    OPT record begins, 0 when there is none."""

    number: int
    flags: int
    name: str
    kind: int
    rrclass: int
    question: bytes
    payload: int = 0
    opt_at: int = 0
    edns_version: int = 0
    dnssec_ok: bool = False

    @property
    def opcode(self) -> int:
        """0 for a plain question."""
        return (self.flags & OPCODE) >> 11

    @property
    def udp_limit(self) -> int:
        """Bytes of the longest answer that may be sent over UDP."""
        return max(self.payload, MIN_PAYLOAD)


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


def decode_name(message: bytes, offset: int) -> tuple[str, int]:
    """The name at ``offset``, as in ``Query.name``, and where the bytes after it begin.

    A compression pointer may only point to before the name it stands in and behind the header, so that no chain of
    them can run in a circle. Raises WireError.
    """
    labels: list[bytes] = []
    after, size, earliest = -1, 1, offset
    while True:
        if offset >= len(message):
            raise WireError("a DNS name ends too early", offset=offset)
        length = message[offset]
        if length >= _POINTER:
            if offset + 1 >= len(message):
                raise WireError("a DNS name ends too early", offset=offset)
            target = (length & 0x3F) << 8 | message[offset + 1]
            if not HEADER.size <= target < earliest:
                raise WireError("a DNS name points to what is no earlier name", offset=offset)
            after = offset + 2 if after < 0 else after
            offset = earliest = target
            continue
        offset += 1
        if length == 0:
            return _text(labels), offset if after < 0 else after
        size += length + 1
        if length > _MAX_LABEL or size > _MAX_NAME or offset + length > len(message):
            raise WireError("a label of a DNS name is too long", offset=offset)
        labels.append(message[offset : offset + length])
        offset += length


def _text(labels: list[bytes]) -> str:
    whole = b".".join(labels).lower()
    # Nearly all names are of letters, digits, "-" and "_" alone.
    if not whole or (not whole.translate(None, _USUAL) and whole.count(b".") == len(labels) - 1):
        return whole.decode("ascii")
    return ".".join(label.lower().decode("latin-1").translate(_ESCAPED) for label in labels)


def decode_query(message: bytes) -> Query:
    """The question in a message that somebody sent us. Raises WireError for what `refusal` should answer, or for
    what is not worth an answer."""
    if len(message) < HEADER.size:
        raise WireError("too short for a DNS message", offset=len(message), expected="a header of 12 bytes")
    number, flags, questions, answers, authorities, additions = HEADER.unpack_from(message)
    if flags & RESPONSE:
        raise WireError("a DNS response where a question was expected")
    if questions != 1:
        raise WireError(f"a DNS message with {questions} questions, expected is one")
    name, offset = decode_name(message, HEADER.size)
    if offset + 4 > len(message):
        raise WireError("a DNS question ends too early", offset=offset)
    kind, rrclass = struct.unpack_from("!HH", message, offset)
    query = Query(number, flags, name, kind, rrclass, message[HEADER.size : offset + 4])
    offset += 4
    for index in range(answers + authorities + additions):
        start = offset
        rr_type, rr_class, ttl, offset = skip_record(message, offset)
        if rr_type != OPT or index < answers + authorities:
            continue
        if query.opt_at or message[start]:
            raise WireError("a DNS message has one OPT record at most, without a name", offset=start)
        query = query._replace(
            payload=max(rr_class, MIN_PAYLOAD),
            opt_at=start,
            edns_version=ttl >> 16 & 0xFF,
            dnssec_ok=bool(ttl & DNSSEC_OK),
        )
    return query


def skip_record(message: bytes, offset: int) -> tuple[int, int, int, int]:
    """Type, class and TTL of the record at ``offset``, and where the bytes after it begin. Raises WireError."""
    _, offset = decode_name(message, offset)
    if offset + RECORD.size > len(message):
        raise WireError("a DNS record ends too early", offset=offset)
    kind, rrclass, ttl, length = RECORD.unpack_from(message, offset)
    end = offset + RECORD.size + length
    if end > len(message):
        raise WireError("the data of a DNS record end too early", offset=offset)
    return kind, rrclass, ttl, end


def refusal(message: bytes, code: int) -> bytes | None:
    """The answer to a message that could not be understood; None when it is none that may be answered."""
    if len(message) < HEADER.size or message[2] & 0x80:
        return None
    number, flags = struct.unpack_from("!HH", message)
    return HEADER.pack(number, RESPONSE | flags & (OPCODE | RECURSION_DESIRED) | code, 0, 0, 0, 0)


def encode_query(number: int, name: str, kind: int) -> bytes:
    """A question that may be asked of any resolver."""
    return HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 0) + _question(name, kind)


def encode_response(
    query: Query,
    code: int,
    answers: Sequence[Record] = (),
    *,
    authority: Sequence[tuple[str, Record]] = (),
    authoritative: bool = False,
) -> bytes:
    """Our own answer to a question. ``answers`` are records of the name in question, ``authority`` of others."""
    flags = RESPONSE | query.flags & (OPCODE | RECURSION_DESIRED) | code & CODE
    flags |= RECURSION_AVAILABLE | (AUTHORITATIVE if authoritative else 0)
    body = b"".join(struct.pack("!H", _POINTER << 8 | HEADER.size) + _data(record) for record in answers)
    body += b"".join(encode_name(owner) + _data(record) for owner, record in authority)
    if query.opt_at:
        ttl = code >> 4 << 24 | (DNSSEC_OK if query.dnssec_ok else 0)
        body += b"\0" + RECORD.pack(OPT, OWN_PAYLOAD, ttl, 0)
    header = HEADER.pack(query.number, flags, 1, len(answers), len(authority), 1 if query.opt_at else 0)
    return header + query.question + body


def soa_data(zone: str, serial: int, lifetime_s: int) -> bytes:
    """The data of an SOA record (RFC 1035 3.3.13) whose only use is to say how long "no" may be remembered."""
    name = encode_name(zone)
    return name + name + struct.pack("!5I", serial, lifetime_s, lifetime_s, lifetime_s, lifetime_s)


def with_payload(message: bytes, query: Query, limit: int) -> bytes:
    """The message of this question, with no more than ``limit`` bytes promised to be taken over UDP."""
    if not query.opt_at or query.payload <= limit:
        return message
    at = query.opt_at + 3  # behind its empty name and its type
    return message[:at] + struct.pack("!H", limit) + message[at + 2 :]


def _data(record: Record) -> bytes:
    return RECORD.pack(record.type, CLASS_IN, record.ttl, len(record.data)) + record.data


def _question(name: str, kind: int) -> bytes:
    return encode_name(name) + struct.pack("!HH", kind, CLASS_IN)
