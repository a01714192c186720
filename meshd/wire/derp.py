"""DERP: the frames between a node and a relay.

    frame  type(1) length(u32 big endian, without these five bytes) payload

Unknown types are skipped by their length, in both directions. Packets that pass the relay are opaque.
Boxes are NaCl boxes between the client's node key and the server's key; `shared` below is
`crypto.box_shared` of that pair.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from meshd.base import crypto
from meshd.base.addr import AddrPort, unpack_ip
from meshd.base.errors import WireError
from meshd.wire.cursor import Cursor
from meshd.wire.derpinfo import ClientInfo, ServerInfo, decode_info, encode_info

MAGIC: Final = b"DERP\xf0\x9f\x94\x91"
PROTOCOL_VERSION: Final = 2
HEADER_SIZE: Final = 5
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 24
MAX_FRAME: Final = 1 << 20
"""A client refuses larger frames."""
MAX_PACKET: Final = 64 << 10
MAX_CLIENT_INFO: Final = 256 << 10
PING_SIZE: Final = 8


class FrameType(IntEnum):
    """c: sent by clients, s: by servers, m: by servers of one region to each other."""

    SERVER_KEY = 0x01  # s
    CLIENT_INFO = 0x02  # c
    SERVER_INFO = 0x03  # s
    SEND_PACKET = 0x04  # c
    RECV_PACKET = 0x05  # s
    KEEP_ALIVE = 0x06  # s
    NOTE_PREFERRED = 0x07  # c
    PEER_GONE = 0x08  # s
    PEER_PRESENT = 0x09  # s to m
    FORWARD_PACKET = 0x0A  # m
    WATCH_CONNS = 0x10  # m
    CLOSE_PEER = 0x11  # m
    PING = 0x12  # c, s
    PONG = 0x13  # c, s
    HEALTH = 0x14  # s
    RESTARTING = 0x15  # s


class PeerGoneReason(IntEnum):
    """Why a peer cannot be reached through this relay; other numbers are possible."""

    DISCONNECTED = 0
    NOT_HERE = 1


class RecvPacket(NamedTuple):
    source: bytes
    packet: bytes


class SendPacket(NamedTuple):
    destination: bytes
    packet: bytes


class ForwardPacket(NamedTuple):
    source: bytes
    destination: bytes
    packet: bytes


class PeerGone(NamedTuple):
    """`reason` is a `PeerGoneReason`, or a number that has no name yet."""

    peer: bytes
    reason: int


class PeerPresent(NamedTuple):
    """`flags`: 1 regular, 2 mesh peer, 4 prober, 8 not ideal. `address` None and flags 0 when not told."""

    peer: bytes
    address: AddrPort | None = None
    flags: int = 0


class Restarting(NamedTuple):
    """Milliseconds to wait before reconnecting, and for how long to try."""

    reconnect_in_ms: int
    try_for_ms: int


def encode_frame(kind: int, payload: bytes = b"") -> bytes:
    """Header and payload."""
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


class FrameReader:
    """Cuts a byte stream into `(type, payload)`. Types are plain ints, unknown ones included.

    A frame longer than `limit` is a `WireError`; memory is bounded by it.
    """

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes | memoryview) -> list[tuple[int, bytes]]:
        """The frames completed by `data`."""
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, bytes]] = []
        start, size = 0, len(buffer)
        with memoryview(buffer) as view:
            while size - start >= HEADER_SIZE:
                kind = view[start]
                length = int.from_bytes(view[start + 1 : start + HEADER_SIZE], "big")
                if length > self._limit:
                    raise WireError(f"frame type {kind} of {length} bytes", expected=f"<= {self._limit}")
                end = start + HEADER_SIZE + length
                if end > size:
                    break
                frames.append((kind, bytes(view[start + HEADER_SIZE : end])))
                start = end
        if start:
            del buffer[:start]
        return frames


# --- greeting ---------------------------------------------------------------------------------------------


def encode_server_key(server_public: bytes) -> bytes:
    """ServerKey frame: the first thing a server says."""
    return encode_frame(FrameType.SERVER_KEY, MAGIC + server_public)


def decode_server_key(payload: bytes, /) -> bytes:
    """The server's public key. Later servers may say more after it."""
    cursor = Cursor(payload)
    if cursor.take(len(MAGIC)) != MAGIC:
        raise WireError("server key frame without its magic", offset=0)
    return cursor.take(KEY_SIZE)


def encode_client_info(client_public: bytes, shared: bytes, nonce: bytes, info: ClientInfo) -> bytes:
    """ClientInfo frame. `nonce` is 24 random bytes."""
    boxed = crypto.box_seal(shared, nonce, encode_info(info))
    return encode_frame(FrameType.CLIENT_INFO, client_public + nonce + boxed)


def split_client_info(payload: bytes, /) -> tuple[bytes, bytes, bytes]:
    """`(client public key, nonce, box)`: the key is needed before the box can be opened."""
    if len(payload) > MAX_CLIENT_INFO:
        raise WireError(f"client info of {len(payload)} bytes", expected=f"<= {MAX_CLIENT_INFO}")
    cursor = Cursor(payload)
    return cursor.take(KEY_SIZE), cursor.take(NONCE_SIZE), cursor.rest()


def open_client_info(shared: bytes, nonce: bytes, boxed: bytes) -> ClientInfo:
    """Content of the box of a ClientInfo frame; `WireError` when it does not authenticate."""
    return decode_info(ClientInfo, _open(shared, nonce, boxed, "client info"))


def encode_server_info(shared: bytes, nonce: bytes, info: ServerInfo) -> bytes:
    """ServerInfo frame. `nonce` is 24 random bytes."""
    return encode_frame(FrameType.SERVER_INFO, nonce + crypto.box_seal(shared, nonce, encode_info(info)))


def decode_server_info(shared: bytes, payload: bytes) -> ServerInfo:
    """`WireError` when it does not authenticate or is not what it should be."""
    cursor = Cursor(payload)
    nonce = cursor.take(NONCE_SIZE)
    return decode_info(ServerInfo, _open(shared, nonce, cursor.rest(), "server info"))


def _open(shared: bytes, nonce: bytes, boxed: bytes, what: str) -> bytes:
    plaintext = crypto.box_open(shared, nonce, boxed)
    if plaintext is None:
        raise WireError(f"{what} does not authenticate")
    return plaintext


# --- packets ----------------------------------------------------------------------------------------------


def encode_send_packet(destination: bytes, packet: bytes) -> bytes:
    return encode_frame(FrameType.SEND_PACKET, destination + packet)


def decode_send_packet(payload: bytes, /) -> SendPacket:
    cursor = Cursor(payload)
    return SendPacket(cursor.take(KEY_SIZE), _packet(cursor))


def encode_recv_packet(source: bytes, packet: bytes) -> bytes:
    return encode_frame(FrameType.RECV_PACKET, source + packet)


def decode_recv_packet(payload: bytes, /) -> RecvPacket:
    cursor = Cursor(payload)
    return RecvPacket(cursor.take(KEY_SIZE), _packet(cursor))


def encode_forward_packet(source: bytes, destination: bytes, packet: bytes) -> bytes:
    return encode_frame(FrameType.FORWARD_PACKET, source + destination + packet)


def decode_forward_packet(payload: bytes, /) -> ForwardPacket:
    cursor = Cursor(payload)
    return ForwardPacket(cursor.take(KEY_SIZE), cursor.take(KEY_SIZE), _packet(cursor))


def _packet(cursor: Cursor) -> bytes:
    if cursor.remaining > MAX_PACKET:
        raise WireError(f"relayed packet of {cursor.remaining} bytes", expected=f"<= {MAX_PACKET}")
    return cursor.rest()


# --- peers ------------------------------------------------------------------------------------------------


def encode_note_preferred(preferred: bool) -> bytes:
    """Whether this relay is the client's home."""
    return encode_frame(FrameType.NOTE_PREFERRED, b"\x01" if preferred else b"\x00")


def decode_note_preferred(payload: bytes, /) -> bool:
    return Cursor(payload).u8() != 0


def encode_peer_gone(peer: bytes, reason: int) -> bytes:
    return encode_frame(FrameType.PEER_GONE, peer + bytes((reason,)))


def decode_peer_gone(payload: bytes, /) -> PeerGone:
    """Old servers leave the reason out: disconnected."""
    cursor = Cursor(payload)
    peer = cursor.take(KEY_SIZE)
    return PeerGone(peer, cursor.u8() if cursor.remaining else PeerGoneReason.DISCONNECTED)


def encode_peer_present(present: PeerPresent) -> bytes:
    payload = present.peer
    if present.address is not None:
        payload += present.address.mapped16() + present.address.port.to_bytes(2, "big")
        payload += bytes((present.flags,))
    return encode_frame(FrameType.PEER_PRESENT, payload)


def decode_peer_present(payload: bytes, /) -> PeerPresent:
    """Address and flags are optional."""
    cursor = Cursor(payload)
    peer = cursor.take(KEY_SIZE)
    if cursor.remaining < 18:
        return PeerPresent(peer)
    address = AddrPort(unpack_ip(cursor.take(16)), cursor.u16be())
    return PeerPresent(peer, address, cursor.u8() if cursor.remaining else 0)


def encode_watch_conns() -> bytes:
    return encode_frame(FrameType.WATCH_CONNS)


def encode_close_peer(peer: bytes) -> bytes:
    return encode_frame(FrameType.CLOSE_PEER, peer)


def decode_close_peer(payload: bytes, /) -> bytes:
    cursor = Cursor(payload)
    peer = cursor.take(KEY_SIZE)
    cursor.end()
    return peer


# --- liveness ---------------------------------------------------------------------------------------------


def encode_keep_alive() -> bytes:
    return encode_frame(FrameType.KEEP_ALIVE)


def encode_ping(data: bytes) -> bytes:
    """`data` is 8 bytes that come back in the pong."""
    return encode_frame(FrameType.PING, data)


def encode_pong(data: bytes) -> bytes:
    return encode_frame(FrameType.PONG, data)


def decode_ping(payload: bytes, /) -> bytes:
    """The 8 bytes of a ping or pong; anything after them is ignored."""
    return Cursor(payload).take(PING_SIZE)


def encode_health(problem: str) -> bytes:
    """Empty text: healthy."""
    return encode_frame(FrameType.HEALTH, problem.encode())


def decode_health(payload: bytes, /) -> str:
    return payload.decode("utf-8", "replace")


def encode_restarting(notice: Restarting) -> bytes:
    return encode_frame(
        FrameType.RESTARTING,
        notice.reconnect_in_ms.to_bytes(4, "big") + notice.try_for_ms.to_bytes(4, "big"),
    )


def decode_restarting(payload: bytes, /) -> Restarting:
    cursor = Cursor(payload)
    return Restarting(cursor.u32be(), cursor.u32be())
