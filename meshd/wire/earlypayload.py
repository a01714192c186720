"""The early payload: what the server may say first inside ts2021, before HTTP/2 begins.

    ff ff ff 54 53 | length u32 big endian | {"nodeKeyChallenge":"chalpub:<64 hex>"}

The nine header bytes are as long as an HTTP/2 frame header, so that a client can read nine bytes and
know which of the two it has.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.base.errors import WireError
from meshd.base.keys import ChallengePublic

MAGIC: Final = b"\xff\xff\xffTS"
HEADER_SIZE: Final = len(MAGIC) + 4
MAX_JSON: Final = 16 * 1024
"""A real payload has about a hundred bytes; the room is for later fields."""


class _EarlyNoise(msgspec.Struct, omit_defaults=True):
    node_key_challenge: str = msgspec.field(name="nodeKeyChallenge", default="")


def encode_early_payload(challenge: ChallengePublic) -> bytes:
    """The bytes a server sends in the same write as its handshake response."""
    body = msgspec.json.encode({"nodeKeyChallenge": challenge.text()})
    return MAGIC + len(body).to_bytes(4, "big") + body


class EarlyPayloadReader:
    """Finds out whether the decrypted stream starts with an early payload."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[ChallengePublic | None, bytes] | None:
        """None while undecided; then once `(challenge or None, bytes that belong to HTTP/2)`.

        Raises `WireError` when the payload is oversized or not what it should be.
        """
        buffer = self._buffer
        buffer += data
        if not MAGIC.startswith(bytes(buffer[: len(MAGIC)])):
            return None, bytes(buffer)
        if len(buffer) < HEADER_SIZE:
            return None
        length = int.from_bytes(buffer[len(MAGIC) : HEADER_SIZE], "big")
        if length > MAX_JSON:
            raise WireError(f"early payload of {length} bytes is too long", expected=f"<= {MAX_JSON} bytes")
        if len(buffer) < HEADER_SIZE + length:
            return None
        challenge = _decode_challenge(bytes(buffer[HEADER_SIZE : HEADER_SIZE + length]))
        return challenge, bytes(buffer[HEADER_SIZE + length :])


def _decode_challenge(body: bytes) -> ChallengePublic | None:
    try:
        text = msgspec.json.decode(body, type=_EarlyNoise).node_key_challenge
        return ChallengePublic.parse(text) if text else None
    except (ValueError, RecursionError) as error:
        raise WireError(f"early payload is malformed: {error}") from error
