"""Tailnet lock: the signature that a node key carries, and what an auth key can hold to make one.

CBOR in the canonical form of CTAP2, a map with ascending integer keys, empty fields left out:

    1 kind (1 direct, 2 rotation, 3 credential)   2 "np" + node key (not for credential)
    3 key id, 32 bytes (direct, credential)       4 Ed25519 signature, 64 bytes
    5 nested signature (rotation)                 6 wrapping public key, 32 bytes

What is signed is BLAKE2s-256 of the same map without field 4.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

import msgspec

from meshd.base.crypto import blake2s
from meshd.base.discreet import Discreet
from meshd.base.errors import WireError

DIRECT: Final = 1
ROTATION: Final = 2
CREDENTIAL: Final = 3

MAX_DEPTH: Final = 16
"""Signatures inside each other; other implementations refuse more."""
MAX_SIZE: Final = 16 * 1024
_NODE_KEY_TAG: Final = b"np"


class NodeKeySignature(msgspec.Struct, frozen=True):
    """One signature, with the one it builds on. Empty bytes: the field is absent."""

    kind: int
    node_key: bytes = b""
    """32 raw bytes."""
    key_id: bytes = b""
    signature: bytes = b""
    nested: NodeKeySignature | None = None
    wrapping_public: bytes = b""

    def encode(self) -> bytes:
        """The canonical CBOR form."""
        import cbor2

        return cbor2.dumps(self._map(), canonical=True)

    def digest(self) -> bytes:
        """The 32 bytes that ``signature`` signs."""
        return blake2s(msgspec.structs.replace(self, signature=b"").encode())

    def _map(self) -> dict[int, Any]:
        fields: dict[int, Any] = {1: self.kind}
        if self.node_key:
            fields[2] = _NODE_KEY_TAG + self.node_key
        if self.key_id:
            fields[3] = self.key_id
        if self.signature:
            fields[4] = self.signature
        if self.nested is not None:
            fields[5] = self.nested._map()
        if self.wrapping_public:
            fields[6] = self.wrapping_public
        return fields


def decode_node_key_signature(data: bytes) -> NodeKeySignature:
    """Raises WireError for anything but one well-formed signature."""
    import cbor2

    if len(data) > MAX_SIZE:
        raise WireError(f"a node key signature of {len(data)} bytes is too long")
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"node key signature: {error}") from None
    signature = _from_map(value, MAX_DEPTH)
    if signature.encode() != data:
        raise WireError("node key signature is not in canonical form")
    return signature


def _from_map(value: Any, depth: int) -> NodeKeySignature:
    if not depth:
        raise WireError("node key signatures are nested too deeply")
    if not isinstance(value, dict) or not all(type(key) is int and 1 <= key <= 6 for key in value):
        raise WireError("node key signature is not a map of its fields")
    kind = value.get(1)
    if type(kind) is not int or kind not in (DIRECT, ROTATION, CREDENTIAL):
        raise WireError("node key signature is of an unknown kind")
    key = _bytes(value, 2, 34)
    if key and not key.startswith(_NODE_KEY_TAG):
        raise WireError("node key signature signs something else than a node key")
    nested = _from_map(value[5], depth - 1) if 5 in value else None
    if (nested is not None) != (kind == ROTATION) or bool(key) == (kind == CREDENTIAL):
        raise WireError("node key signature has fields that its kind does not have")
    return NodeKeySignature(kind, key[2:], _bytes(value, 3, 32), _bytes(value, 4, 64), nested, _bytes(value, 6, 32))


def _bytes(value: dict[int, Any], key: int, size: int) -> bytes:
    data = value.get(key, b"")
    if not isinstance(data, bytes) or len(data) not in (0, size):
        raise WireError(f"field {key} of a node key signature is not {size} bytes")
    return data


class WrappedAuthKey(Discreet, frozen=True):
    """An auth key that also vouches for the node: ``credential`` delegates to ``private`` (64 bytes, Ed25519)."""

    hidden = ("auth_key", "private")

    auth_key: str
    credential: NodeKeySignature
    private: bytes


def unwrap_auth_key(text: str) -> WrappedAuthKey | None:
    """The parts of ``<key>--TL<signature>-<private>``; None for an ordinary key. WireError when cut short."""
    auth_key, separator, suffix = text.partition("--TL")
    if not separator:
        return None
    signature, separator, private = suffix.partition("-")
    if not separator:
        raise WireError("the part of the auth key after --TL is incomplete")
    try:
        credential = decode_node_key_signature(_unpadded(signature))
        raw = _unpadded(private)
    except ValueError as error:
        raise WireError(f"the part of the auth key after --TL is damaged: {type(error).__name__}") from None
    if credential.kind != CREDENTIAL or len(raw) != 64:
        raise WireError("the part of the auth key after --TL is damaged")
    return WrappedAuthKey(auth_key, credential, raw)


def _unpadded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)
