"""The answer to `GET /key`: the server's public keys."""

from __future__ import annotations

import msgspec

from meshd.wire.control.values import ZERO_MACHINE_KEY, MachineKeyText, always


class OverTLSPublicKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """`legacy_public_key` is zero towards clients of this century; `public_key` is the Noise static key."""

    legacy_public_key: MachineKeyText = always(ZERO_MACHINE_KEY)
    public_key: MachineKeyText = always(ZERO_MACHINE_KEY)
