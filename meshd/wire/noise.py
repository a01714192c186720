"""ts2021: the Noise IK handshake between a node and its coordination server, and the records after it.

Protocol name `Noise_IK_25519_ChaChaPoly_BLAKE2s`. Messages are big endian:

    initiation  version(2) 01 length(2)=96 ephemeral(32) sealed machine key(48) tag(16)   101 bytes
    response    02 length(2)=48 ephemeral(32) tag(16)                                      51 bytes
    error       03 length(2) UTF-8 text, unauthenticated
    record      04 length(2) ciphertext(16..4093)

Unlike the Noise specification the record counter sits big endian in the nonce. Nothing here does I/O.
"""

from __future__ import annotations

import os
from typing import Final

from meshd.base import crypto
from meshd.base.errors import WireError
from meshd.base.keys import MachinePrivate, MachinePublic
from meshd.wire.cursor import Cursor

PROTOCOL_NAME: Final = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE_PREFIX: Final = "Tailscale Control Protocol v"

TYPE_INITIATION: Final = 1
TYPE_RESPONSE: Final = 2
TYPE_ERROR: Final = 3
TYPE_RECORD: Final = 4

INITIATION_SIZE: Final = 101
RESPONSE_SIZE: Final = 51
RECORD_HEADER_SIZE: Final = 3
MAX_FRAME: Final = 4096
"""Largest record on the wire, header included."""
MAX_CIPHERTEXT: Final = MAX_FRAME - RECORD_HEADER_SIZE
TAG_SIZE: Final = 16
MAX_PLAINTEXT: Final = MAX_CIPHERTEXT - TAG_SIZE
"""Largest plaintext of one record: 4077 bytes."""

_ZERO_NONCE: Final = bytes(12)
_LAST_COUNTER: Final = 2**64 - 2
"""2**64 - 1 is never used as a counter: the connection is dead there."""


class _SymmetricState:
    """Chaining key and transcript hash of one handshake (Noise specification 5.2)."""

    __slots__ = ("chaining_key", "hash")

    def __init__(self, version: int, control_public: bytes) -> None:
        self.hash = crypto.blake2s(PROTOCOL_NAME)
        self.chaining_key = self.hash
        self.mix_hash(f"{PROLOGUE_PREFIX}{version}".encode())
        self.mix_hash(control_public)

    def mix_hash(self, data: bytes) -> None:
        self.hash = crypto.blake2s(self.hash, data)

    def mix_key(self, private: bytes, public: bytes) -> bytes:
        """Mix in a Diffie-Hellman result; returns the key for the next AEAD."""
        try:
            shared = crypto.x25519(private, public)
        except ValueError as error:
            raise WireError("the other side sent a public key of low order") from error
        self.chaining_key, key = crypto.kdf(2, self.chaining_key, shared)
        return key

    def encrypt(self, key: bytes, plaintext: bytes) -> bytes:
        sealed = crypto.aead_seal(key, _ZERO_NONCE, plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, key: bytes, sealed: bytes, what: str) -> bytes:
        plaintext = crypto.aead_open(key, _ZERO_NONCE, sealed, self.hash)
        if plaintext is None:
            raise WireError(f"{what} does not authenticate")
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Keys client to server, server to client."""
        client_to_server, server_to_client = crypto.kdf(2, self.chaining_key, b"")
        return client_to_server, server_to_client


class Transport:
    """Seals and opens records after the handshake, one counter per direction, no rekey.

    Any `WireError` from here means that the connection is dead.
    """

    __slots__ = ("_open_counter", "_open_key", "_seal_counter", "_seal_key", "handshake_hash")

    def __init__(self, seal_key: bytes, open_key: bytes, handshake_hash: bytes) -> None:
        self._seal_key = seal_key
        self._open_key = open_key
        self._seal_counter = 0
        self._open_counter = 0
        self.handshake_hash = handshake_hash
        """32 bytes that both ends share (channel binding)."""

    def __repr__(self) -> str:
        return f"Transport(sealed={self._seal_counter}, opened={self._open_counter})"

    def seal(self, plaintext: bytes) -> bytes:
        """One whole record, header included. At most `MAX_PLAINTEXT` bytes of plaintext."""
        if len(plaintext) > MAX_PLAINTEXT:
            raise WireError(f"a record holds at most {MAX_PLAINTEXT} bytes, not {len(plaintext)}")
        nonce = _record_nonce(self._seal_counter)
        self._seal_counter += 1
        sealed = crypto.aead_seal(self._seal_key, nonce, plaintext)
        return bytes((TYPE_RECORD,)) + len(sealed).to_bytes(2, "big") + sealed

    def open(self, ciphertext: bytes) -> bytes:
        """Plaintext of one record body (without its 3-byte header); may be empty."""
        plaintext = crypto.aead_open(self._open_key, _record_nonce(self._open_counter), ciphertext)
        if plaintext is None:
            raise WireError("record does not authenticate")
        self._open_counter += 1
        return plaintext


def _record_nonce(counter: int) -> bytes:
    if counter > _LAST_COUNTER:
        raise WireError("record counter is used up")
    return b"\x00\x00\x00\x00" + counter.to_bytes(8, "big")


class Initiator:
    """Client side of the handshake: send `message()`, then give the answer to `finish()`.

    `version` is the capability version; the prologue binds it. `ephemeral` is for tests.
    """

    def __init__(
        self,
        machine_private: MachinePrivate,
        control_public: MachinePublic,
        version: int,
        ephemeral: bytes | None = None,
    ) -> None:
        if not 0 < version <= 0xFFFF:
            raise ValueError(f"protocol version {version} does not fit the header")
        self._machine_private = machine_private.raw
        self._ephemeral = crypto.clamp(os.urandom(32) if ephemeral is None else ephemeral)
        state = _SymmetricState(version, control_public.raw)
        ephemeral_public = crypto.x25519_public(self._ephemeral)
        state.mix_hash(ephemeral_public)
        key = state.mix_key(self._ephemeral, control_public.raw)
        sealed_machine = state.encrypt(key, crypto.x25519_public(self._machine_private))
        key = state.mix_key(self._machine_private, control_public.raw)
        tag = state.encrypt(key, b"")
        body = ephemeral_public + sealed_machine + tag
        header = version.to_bytes(2, "big") + bytes((TYPE_INITIATION,)) + len(body).to_bytes(2, "big")
        self._message = header + body
        self._state = state

    def message(self) -> bytes:
        """The 101-byte initiation; always the same bytes."""
        return self._message

    def finish(self, reply: bytes) -> Transport:
        """Check the 51-byte response; raises `WireError` when it was not made by the expected server."""
        cursor = Cursor(reply)
        kind = cursor.u8()
        length = cursor.u16be()
        if kind == TYPE_ERROR:
            text = cursor.take(min(length, cursor.remaining)).decode("utf-8", "replace")
            raise WireError(f"the server refused the handshake: {text[:200]!r}")
        if kind != TYPE_RESPONSE or length != RESPONSE_SIZE - RECORD_HEADER_SIZE:
            raise WireError(f"unexpected handshake message: type {kind}, length {length}", offset=0, expected="type 2")
        ephemeral_public = cursor.take(32)
        tag = cursor.take(TAG_SIZE)
        cursor.end()
        state = self._state
        state.mix_hash(ephemeral_public)
        state.mix_key(self._ephemeral, ephemeral_public)
        key = state.mix_key(self._machine_private, ephemeral_public)
        state.decrypt(key, tag, "handshake response")
        client_to_server, server_to_client = state.split()
        return Transport(client_to_server, server_to_client, state.hash)


class Responder:
    """Server side of the handshake. One object answers any number of clients."""

    def __init__(self, control_private: MachinePrivate) -> None:
        self._private = control_private.raw
        self._public = crypto.x25519_public(self._private)

    def respond(self, initiation: bytes, ephemeral: bytes | None = None) -> tuple[bytes, bytes, int, Transport]:
        """Answer an initiation: `(51-byte reply, machine public key, client version, transport)`.

        The machine key is proven to belong to the sender; whether it is welcome is for the caller to say.
        Raises `WireError` on anything malformed or not meant for this server.
        """
        cursor = Cursor(initiation)
        version = cursor.u16be()
        kind = cursor.u8()
        length = cursor.u16be()
        if kind != TYPE_INITIATION or length != INITIATION_SIZE - 5:
            raise WireError(f"unexpected handshake message: type {kind}, length {length}", offset=2, expected="type 1")
        ephemeral_public = cursor.take(32)
        sealed_machine = cursor.take(48)
        tag = cursor.take(TAG_SIZE)
        cursor.end()

        state = _SymmetricState(version, self._public)
        state.mix_hash(ephemeral_public)
        key = state.mix_key(self._private, ephemeral_public)
        machine_public = state.decrypt(key, sealed_machine, "machine key")
        key = state.mix_key(self._private, machine_public)
        state.decrypt(key, tag, "handshake initiation")

        own = crypto.clamp(os.urandom(32) if ephemeral is None else ephemeral)
        own_public = crypto.x25519_public(own)
        state.mix_hash(own_public)
        state.mix_key(own, ephemeral_public)
        key = state.mix_key(own, machine_public)
        body = own_public + state.encrypt(key, b"")
        reply = bytes((TYPE_RESPONSE,)) + len(body).to_bytes(2, "big") + body
        client_to_server, server_to_client = state.split()
        return reply, machine_public, version, Transport(server_to_client, client_to_server, state.hash)


class RecordReader:
    """Cuts a byte stream into record bodies. Holds at most one incomplete record."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Ciphertexts of all records completed by `data`; raises `WireError` on a bad type or length."""
        buffer = self._buffer
        buffer += data
        records: list[bytes] = []
        start = 0
        while len(buffer) - start >= RECORD_HEADER_SIZE:
            kind = buffer[start]
            length = buffer[start + 1] << 8 | buffer[start + 2]
            if kind != TYPE_RECORD:
                raise WireError(f"unexpected record type {kind}", expected="type 4")
            if not TAG_SIZE <= length <= MAX_CIPHERTEXT:
                raise WireError(f"record length {length} is out of range", expected=f"{TAG_SIZE}..{MAX_CIPHERTEXT}")
            body = start + RECORD_HEADER_SIZE
            if len(buffer) - body < length:
                break
            records.append(bytes(buffer[body : body + length]))
            start = body + length
        if start:
            del buffer[:start]
        return records


class StreamCipher:
    """A byte stream on top of records: what is written at one end is read at the other, cut anywhere."""

    __slots__ = ("_reader", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reader = RecordReader()

    def seal_stream(self, data: bytes) -> bytes:
        """Records that carry `data`, split at `MAX_PLAINTEXT`; empty for empty data."""
        if len(data) <= MAX_PLAINTEXT:
            return self._transport.seal(bytes(data)) if data else b""
        view = memoryview(data)
        return b"".join(
            self._transport.seal(bytes(view[start : start + MAX_PLAINTEXT]))
            for start in range(0, len(view), MAX_PLAINTEXT)
        )

    def open_stream(self, data: bytes) -> bytes:
        """Plaintext that became complete with `data`; may be empty."""
        return b"".join([self._transport.open(sealed) for sealed in self._reader.feed(data)])
