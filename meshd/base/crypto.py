"""The primitives of the slow path: X25519, BLAKE2s, ChaCha20-Poly1305 and the NaCl box.

Packets of the data plane do not come through here; they are sealed in ``meshd._fast``.
All functions take and return plain bytes and raise ValueError when a length is wrong.
"""

from __future__ import annotations

from hashlib import blake2s as _blake2s
from hmac import compare_digest
from typing import Any

import pysodium as _sodium

from meshd._fast.aead import Cipher as _Cipher

_ZERO_32 = bytes(32)
_BLOCK = 64  # input block of BLAKE2s, for HMAC
_INNER = bytes(x ^ 0x36 for x in range(256))
_OUTER = bytes(x ^ 0x5C for x in range(256))
_na: Any = _sodium
_cipher = _Cipher("sodium")  # keeps no key; half the time of a call through ctypes


def clamp(raw: bytes) -> bytes:
    """An X25519 private key with the bits of RFC 7748 section 5 fixed, as keys are stored."""
    if len(raw) != 32:
        raise ValueError(f"a private key has 32 bytes, not {len(raw)}")
    return bytes([raw[0] & 0xF8]) + raw[1:31] + bytes([(raw[31] & 0x7F) | 0x40])


def x25519(private: bytes, public: bytes) -> bytes:
    """The shared secret. Raises ValueError when it is all zero (a low-order point was offered)."""
    if len(private) != 32 or len(public) != 32:
        raise ValueError("X25519 keys have 32 bytes")
    try:
        shared: bytes = _na.crypto_scalarmult_curve25519(private, public)
    except ValueError:
        shared = _ZERO_32
    if shared == _ZERO_32:
        raise ValueError("the public key is a low-order point")
    return shared


def x25519_public(private: bytes) -> bytes:
    """The public key of a 32-byte private key."""
    if len(private) != 32:
        raise ValueError(f"a private key has 32 bytes, not {len(private)}")
    public: bytes = _na.crypto_scalarmult_curve25519_base(private)
    return public


def blake2s(*parts: bytes) -> bytes:
    """BLAKE2s-256 of the concatenated parts."""
    state = _blake2s()
    for part in parts:
        state.update(part)
    return state.digest()


def blake2s_mac(key: bytes, data: bytes, size: int = 16) -> bytes:
    """Keyed BLAKE2s with a digest of ``size`` bytes: the MAC() of the WireGuard paper, section 5.4."""
    return _blake2s(data, key=key, digest_size=size).digest()


def hmac_blake2s(key: bytes, *parts: bytes) -> bytes:
    """HMAC (RFC 2104) over BLAKE2s-256; not the same as keyed BLAKE2s."""
    if len(key) > _BLOCK:
        key = _blake2s(key).digest()
    padded = key.ljust(_BLOCK, b"\0")
    inner = _blake2s(padded.translate(_INNER))
    for part in parts:
        inner.update(part)
    return _blake2s(padded.translate(_OUTER) + inner.digest()).digest()


def kdf(count: int, chaining_key: bytes, data: bytes) -> tuple[bytes, ...]:
    """``count`` keys of 32 bytes derived as HKDF does in the Noise protocol, section 4.3."""
    secret = hmac_blake2s(chaining_key, data)
    outputs: list[bytes] = []
    previous = b""
    for index in range(1, count + 1):
        previous = hmac_blake2s(secret, previous, bytes([index]))
        outputs.append(previous)
    return tuple(outputs)


def aead_seal(key: bytes, nonce: bytes, plaintext: bytes, ad: bytes = b"") -> bytes:
    """ChaCha20-Poly1305 (RFC 8439), 12-byte nonce; returns ciphertext and tag."""
    return _cipher.seal(plaintext, nonce, key, ad)


def aead_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes = b"") -> bytes | None:
    """The plaintext, or None when the tag does not fit."""
    return _cipher.open(sealed, nonce, key, ad)


def xaead_seal(key: bytes, nonce: bytes, plaintext: bytes, ad: bytes = b"") -> bytes:
    """XChaCha20-Poly1305, 24-byte nonce (WireGuard cookie replies)."""
    sealed: bytes = _na.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, ad or None, nonce, key)
    return sealed


def xaead_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes = b"") -> bytes | None:
    """The plaintext, or None when the tag does not fit."""
    if len(sealed) < 16:
        return None
    try:
        opened: bytes = _na.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, ad or None, nonce, key)
    except ValueError:
        return None
    return opened


def box_shared(private: bytes, public: bytes) -> bytes:
    """The precomputed key of a NaCl box between two X25519 keys."""
    shared: bytes = _na.crypto_box_beforenm(public, private)
    return shared


def box_seal(shared: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """NaCl box (XSalsa20-Poly1305) with a precomputed key and a 24-byte nonce; the tag comes first."""
    sealed: bytes = _na.crypto_box_afternm(plaintext, nonce, shared)
    return sealed


def box_open(shared: bytes, nonce: bytes, boxed: bytes) -> bytes | None:
    """The plaintext, or None when the tag does not fit."""
    if len(boxed) < 16 or len(nonce) != 24:
        return None
    try:
        opened: bytes = _na.crypto_box_open_afternm(boxed, nonce, shared)
    except ValueError:
        return None
    return opened


def same(a: bytes, b: bytes) -> bool:
    """Equality in constant time."""
    return compare_digest(a, b)


def ed25519_sign(private: bytes, message: bytes) -> bytes:
    """The 64-byte signature (RFC 8032) by a private key of 64 bytes, seed then public key."""
    if len(private) != 64:
        raise ValueError("an Ed25519 private key has 64 bytes")
    signature: bytes = _na.crypto_sign_detached(message, private)
    return signature
