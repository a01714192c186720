"""The WireGuard handshake: Noise IKpsk2 over X25519, ChaCha20-Poly1305 and BLAKE2s (WireGuard paper 5.4).

Pure functions over values. Message values carry zero MACs; ``core.cookie`` fills those in over the
encoded bytes. A function that opens something from the network returns None when it does not
authenticate, so that the caller's state is never touched by a forgery.
"""

from __future__ import annotations

from collections.abc import Callable

from meshd.base.crypto import aead_open, aead_seal, blake2s, kdf, x25519, x25519_public
from meshd.base.discreet import Discreet
from meshd.wire.wireguard import Initiation, Response

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"

_INITIAL_KEY = blake2s(CONSTRUCTION)
_INITIAL_HASH = blake2s(_INITIAL_KEY, IDENTIFIER)
_NONCE_ZERO = bytes(12)
_MAC_ZERO = bytes(16)
_NO_PSK = bytes(32)  # networks of this kind never set one; the step is still taken

Random = Callable[[int], bytes]


class Identity(Discreet, frozen=True):
    """Our static key pair."""

    hidden = ("private",)

    private: bytes
    public: bytes

    @classmethod
    def of(cls, private: bytes) -> Identity:
        """From 32 clamped private bytes."""
        return cls(private, x25519_public(private))


class Counterpart(Discreet, frozen=True):
    """What a handshake needs to know of the other side. Costs one X25519 to make."""

    hidden = ("static_shared", "psk")

    public: bytes
    static_shared: bytes
    psk: bytes = _NO_PSK

    @classmethod
    def between(cls, identity: Identity, public: bytes, psk: bytes = _NO_PSK) -> Counterpart:
        """Raises ValueError when ``public`` is a low-order point."""
        return cls(public, x25519(identity.private, public), psk)


class SessionKeys(Discreet, frozen=True):
    """One key pair: indices are u32, keys 32 bytes, both counters start at 0."""

    hidden = ("send_key", "receive_key")

    local_index: int
    remote_index: int
    send_key: bytes
    receive_key: bytes
    initiator: bool


class PendingInitiation(Discreet, frozen=True):
    """The initiator's state between its message and the response."""

    hidden = ("ephemeral_private", "chaining_key")

    local_index: int
    ephemeral_private: bytes
    chaining_key: bytes
    hash: bytes


class OpenedInitiation(Discreet, frozen=True):
    """A first message of which the sender's static key is decrypted, but nothing yet proven fresh."""

    hidden = ("chaining_key",)

    sender_public: bytes
    message: Initiation
    chaining_key: bytes
    hash: bytes


class AcceptedInitiation(Discreet, frozen=True):
    """A first message that authenticated; ``timestamp`` (12 bytes) must exceed all earlier ones."""

    hidden = ("chaining_key",)

    timestamp: bytes
    remote_index: int
    remote_ephemeral: bytes
    chaining_key: bytes
    hash: bytes


def create_initiation(
    identity: Identity, peer: Counterpart, *, local_index: int, timestamp: bytes, ephemeral_private: bytes
) -> tuple[Initiation, PendingInitiation]:
    """The first message. ``ephemeral_private`` is fresh for every call and clamped.

    Raises ValueError when the peer's key is a low-order point.
    """
    ephemeral = x25519_public(ephemeral_private)
    hash_ = blake2s(_INITIAL_HASH, peer.public)
    (chaining_key,) = kdf(1, _INITIAL_KEY, ephemeral)
    hash_ = blake2s(hash_, ephemeral)
    chaining_key, key = kdf(2, chaining_key, x25519(ephemeral_private, peer.public))
    static = aead_seal(key, _NONCE_ZERO, identity.public, hash_)
    hash_ = blake2s(hash_, static)
    chaining_key, key = kdf(2, chaining_key, peer.static_shared)
    sealed_timestamp = aead_seal(key, _NONCE_ZERO, timestamp, hash_)
    hash_ = blake2s(hash_, sealed_timestamp)
    message = Initiation(
        sender=local_index,
        ephemeral=ephemeral,
        static=static,
        timestamp=sealed_timestamp,
        mac1=_MAC_ZERO,
        mac2=_MAC_ZERO,
    )
    return message, PendingInitiation(local_index, ephemeral_private, chaining_key, hash_)


def open_initiation(identity: Identity, message: Initiation) -> OpenedInitiation | None:
    """Decrypt who sent a first message, which costs one X25519. Call ``accept_initiation`` next."""
    hash_ = blake2s(blake2s(_INITIAL_HASH, identity.public), message.ephemeral)
    (chaining_key,) = kdf(1, _INITIAL_KEY, message.ephemeral)
    try:
        shared = x25519(identity.private, message.ephemeral)
    except ValueError:
        return None
    chaining_key, key = kdf(2, chaining_key, shared)
    sender = aead_open(key, _NONCE_ZERO, message.static, hash_)
    if sender is None:
        return None
    return OpenedInitiation(sender, message, chaining_key, blake2s(hash_, message.static))


def accept_initiation(peer: Counterpart, opened: OpenedInitiation) -> AcceptedInitiation | None:
    """Authenticate a first message as coming from ``peer``."""
    chaining_key, key = kdf(2, opened.chaining_key, peer.static_shared)
    timestamp = aead_open(key, _NONCE_ZERO, opened.message.timestamp, opened.hash)
    if timestamp is None:
        return None
    return AcceptedInitiation(
        timestamp,
        opened.message.sender,
        opened.message.ephemeral,
        chaining_key,
        blake2s(opened.hash, opened.message.timestamp),
    )


def create_response(
    peer: Counterpart, accepted: AcceptedInitiation, *, local_index: int, ephemeral_private: bytes
) -> tuple[Response, SessionKeys]:
    """The second message and the session it makes. ValueError: the sender used a low-order point."""
    ephemeral = x25519_public(ephemeral_private)
    hash_ = blake2s(accepted.hash, ephemeral)
    (chaining_key,) = kdf(1, accepted.chaining_key, ephemeral)
    (chaining_key,) = kdf(1, chaining_key, x25519(ephemeral_private, accepted.remote_ephemeral))
    (chaining_key,) = kdf(1, chaining_key, x25519(ephemeral_private, peer.public))
    chaining_key, tau, key = kdf(3, chaining_key, peer.psk)
    empty = aead_seal(key, _NONCE_ZERO, b"", blake2s(hash_, tau))
    message = Response(
        sender=local_index,
        receiver=accepted.remote_index,
        ephemeral=ephemeral,
        empty=empty,
        mac1=_MAC_ZERO,
        mac2=_MAC_ZERO,
    )
    receive_key, send_key = kdf(2, chaining_key, b"")
    return message, SessionKeys(local_index, accepted.remote_index, send_key, receive_key, initiator=False)


def accept_response(
    identity: Identity, peer: Counterpart, pending: PendingInitiation, message: Response
) -> SessionKeys | None:
    """The session a second message completes, or None when it does not authenticate."""
    hash_ = blake2s(pending.hash, message.ephemeral)
    (chaining_key,) = kdf(1, pending.chaining_key, message.ephemeral)
    try:
        (chaining_key,) = kdf(1, chaining_key, x25519(pending.ephemeral_private, message.ephemeral))
        (chaining_key,) = kdf(1, chaining_key, x25519(identity.private, message.ephemeral))
    except ValueError:
        return None
    chaining_key, tau, key = kdf(3, chaining_key, peer.psk)
    if aead_open(key, _NONCE_ZERO, message.empty, blake2s(hash_, tau)) is None:
        return None
    send_key, receive_key = kdf(2, chaining_key, b"")
    return SessionKeys(pending.local_index, message.sender, send_key, receive_key, initiator=True)
