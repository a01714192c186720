"""Tailnet lock: signatures that a node makes for its own new key.

Only its own chain is ever extended: a trusted signature came first and named the key that may do so.
"""

from __future__ import annotations

import msgspec

from meshd.base.crypto import ed25519_sign
from meshd.base.errors import WireError
from meshd.base.keys import LockPrivate, NodePublic
from meshd.wire.nodekeysignature import (
    CREDENTIAL,
    ROTATION,
    NodeKeySignature,
    WrappedAuthKey,
    decode_node_key_signature,
)

MAX_FORMER_KEYS = 15  # in a chain that can still be extended without nesting too deeply for other nodes


def sign_rotation(lock: LockPrivate, node_key: NodePublic, old: bytes) -> bytes:
    """The signature of ``node_key`` that builds on the old key's. Raises WireError for a malformed old one."""
    former = decode_node_key_signature(old)
    if former.node_key == node_key.raw:
        return old  # it is the signature of this very key
    return _signed(lock.raw, node_key.raw, _shortened(lock.raw, former)).encode()


def sign_by_credential(wrapped: WrappedAuthKey, node_key: NodePublic) -> bytes:
    """The signature of ``node_key`` by the power of a wrapped auth key."""
    if wrapped.credential.kind != CREDENTIAL:
        raise WireError("the auth key holds a signature that delegates nothing")
    return _signed(wrapped.private, node_key.raw, wrapped.credential).encode()


def _signed(private: bytes, node_key: bytes, nested: NodeKeySignature) -> NodeKeySignature:
    bare = NodeKeySignature(ROTATION, node_key=node_key, nested=nested)
    return msgspec.structs.replace(bare, signature=ed25519_sign(private, bare.digest()))


def _shortened(private: bytes, former: NodeKeySignature) -> NodeKeySignature:
    """A chain that has become too long, signed anew for its latest keys only."""
    keys: list[bytes] = []
    root: NodeKeySignature = former
    while root.kind == ROTATION and root.nested is not None:
        keys.append(root.node_key)
        root = root.nested
    if len(keys) + bool(root.node_key) <= MAX_FORMER_KEYS:
        return former
    chain = root
    for node_key in reversed(keys[: MAX_FORMER_KEYS - 1]):
        chain = _signed(private, node_key, chain)
    return chain
