"""A node that signs its own new key under tailnet lock."""

from __future__ import annotations

import json
from pathlib import Path

import pysodium

from meshd.base.keys import LockPrivate, NodePublic
from meshd.core.nodekeysigning import sign_by_credential, sign_rotation
from meshd.wire.nodekeysignature import DIRECT, NodeKeySignature, decode_node_key_signature, unwrap_auth_key

VECTORS = Path(__file__).parents[2] / "vectors"
TKA = json.loads((VECTORS / "tka.json").read_text())
FRAMES = json.loads((VECTORS / "frames.json").read_text())["node_key_signature"]


def test_sign_rotation_equals_the_recorded_signature() -> None:
    """LK-10."""
    public, private = pysodium.crypto_sign_seed_keypair(bytes.fromhex(FRAMES["wrapping_private_seed"]))
    old = bytes.fromhex(FRAMES["direct"])
    assert decode_node_key_signature(old).wrapping_public == public
    new_key = NodePublic(bytes.fromhex(FRAMES["node2_public"]))
    assert sign_rotation(LockPrivate(private), new_key, old).hex() == FRAMES["rotation"]


def test_sign_rotation_same_key_keeps_its_signature() -> None:
    old = bytes.fromhex(FRAMES["direct"])
    key = NodePublic(bytes.fromhex(FRAMES["node1_public"]))
    assert sign_rotation(LockPrivate.generate(), key, old) == old


def test_sign_by_credential_equals_the_recorded_signature() -> None:
    """LK-06."""
    wrapped = unwrap_auth_key(TKA["wrapped_authkey"])
    assert wrapped is not None
    made = sign_by_credential(wrapped, NodePublic(bytes.fromhex(TKA["nks_direct"]["nodekey"])))
    assert made.hex() == TKA["nks_rotation_over_credential"]


def test_sign_rotation_long_chains_stay_within_the_limit() -> None:
    """Forty rotations: every step verifies, none nests deeper than others accept, the root stays."""
    lock = LockPrivate.generate()
    root = NodeKeySignature(DIRECT, bytes(32), bytes(32), bytes(64), wrapping_public=lock.public().raw)
    data = root.encode()
    for number in range(1, 41):
        data = sign_rotation(lock, NodePublic(number.to_bytes(32, "big")), data)
        step: NodeKeySignature | None = decode_node_key_signature(data)
        depth = 0
        while step is not None and step.kind != DIRECT:
            pysodium.crypto_sign_verify_detached(step.signature, step.digest(), lock.public().raw)
            step, depth = step.nested, depth + 1
        assert step == root
        assert depth <= 15
