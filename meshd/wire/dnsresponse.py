"""DNS responses of other resolvers: whether they belong to a question, and how they are handed on."""

from __future__ import annotations

import struct

from meshd.base.errors import WireError
from meshd.wire.dnsmessage import (
    CODE,
    HEADER,
    OPCODE,
    OPT,
    RECORD,
    RESPONSE,
    TRUNCATED,
    skip_record,
)


def answers(query: bytes, question: bytes, message: bytes) -> bool:
    """Whether ``message`` is a response to the message ``query`` that begins with this question: same number, same
    kind of request, same question. Servers may write its letters in another case."""
    end = HEADER.size + len(question)
    if len(message) < end or message[:2] != query[:2]:
        return False
    _, flags, questions, *_ = HEADER.unpack_from(message)
    asked = int.from_bytes(query[2:4], "big")
    return bool(
        flags & RESPONSE
        and flags & OPCODE == asked & OPCODE
        and questions == 1
        and folded(message[HEADER.size : end]) == folded(question)
    )


def folded(question: bytes) -> bytes:
    """For comparisons: the case of letters in the name is nothing, in type and class it is another number."""
    return question[:-4].lower() + question[-4:]


def answers_without_question(query: bytes, message: bytes) -> bool:
    """Whether ``message`` is a failure without a question: what servers say who do not understand a request."""
    if len(message) < HEADER.size or message[:2] != query[:2]:
        return False
    _, flags, *counts = HEADER.unpack_from(message)
    return bool(flags & RESPONSE and flags & CODE and not any(counts[:3]))


def has_question(message: bytes) -> bool:
    """Whether a response repeats what was asked. Its length does not tell: an OPT record may follow the header."""
    return message[4:6] != b"\0\0"


def code_of(message: bytes) -> int:
    """The response code."""
    return message[3] & CODE


def is_truncated(message: bytes) -> bool:
    """Whether the server had more to say than fits UDP."""
    return bool(message[2] << 8 & TRUNCATED)


def for_asker(message: bytes, number: int, question: bytes) -> bytes:
    """The response with the number and the spelling of an asker: all who ask the same share one response."""
    return struct.pack("!H", number) + message[2 : HEADER.size] + question + message[HEADER.size + len(question) :]


def cut(message: bytes, question: bytes, limit: int) -> bytes:
    """The response, if it is longer than ``limit`` bytes with as many whole answers as fit, and marked as cut.

    Askers come again over TCP, but for those that never do: they use what they got.
    """
    if len(message) <= limit:
        return message
    number, flags, *_ = HEADER.unpack_from(message)
    start = HEADER.size + len(question)
    try:
        ends, opt = _answers_and_opt(message, start)
    except WireError:
        ends, opt = [], b""
    room = limit - len(opt)
    kept = sum(1 for end in ends if end <= room)
    end = ends[kept - 1] if kept else start
    header = HEADER.pack(number, flags | TRUNCATED, 1, kept, 0, 1 if opt else 0)
    return header + message[HEADER.size : end] + opt


def _answers_and_opt(message: bytes, offset: int) -> tuple[list[int], bytes]:
    """Where each answer ends, and the OPT record without its options."""
    *_, answers, authorities, additions = HEADER.unpack_from(message)
    ends: list[int] = []
    opt = b""
    for index in range(answers + authorities + additions):
        start = offset
        kind, rrclass, ttl, offset = skip_record(message, offset)
        if index < answers:
            ends.append(offset)
        elif kind == OPT and not message[start]:
            opt = b"\0" + RECORD.pack(OPT, rrclass, ttl, 0)
    return ends, opt
