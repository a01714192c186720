"""The key types and their text forms.

Every key is a type of its own, so that a disco key cannot stand where a node key belongs. Private keys
never show their bytes in ``repr`` or ``str``; ``text()`` is the one way to write them out.

Text is a prefix and lower-case hex:
``nodekey:…``, ``mkey:…``, ``discokey:…``, ``chalpub:…``, ``nlpub:…`` for
public keys, ``privkey:…`` and ``nlpriv:…`` for private ones. The all-zero key is valid text and means "unset".
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from typing import ClassVar, Self

from meshd._fast.addresstext import key_of
from meshd._fast.rawkey import RawKey, trusted
from meshd.base.crypto import clamp, x25519_public

Random = Callable[[int], bytes]

_ZERO = {32: bytes(32), 64: bytes(64)}


class _Key(RawKey):
    """Shared by all keys: ``raw`` bytes, comparison, text form."""

    __slots__ = ()
    prefix: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    size: ClassVar[int] = 32

    @classmethod
    def zero(cls) -> Self:
        """The key that means "unset"."""
        return cls(bytes(cls.size))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key written as ``text``; ValueError names what is wrong, never the key itself."""
        if cls.size == 32:
            usual = key_of(text, cls.prefix)
            if usual is not None:
                return trusted(cls, usual)
        prefix, colon, digits = text.partition(":")
        if not colon or (prefix != cls.prefix and prefix not in cls.aliases):
            raise ValueError(f"not a key of the form {cls.prefix}:<{cls.size * 2} hex digits>")
        if len(digits) != cls.size * 2:
            raise ValueError(f"a {cls.prefix} key has {cls.size * 2} hex digits, not {len(digits)}")
        try:
            return cls(bytes.fromhex(digits))
        except ValueError:
            raise ValueError(f"a {cls.prefix} key holds a character that is not a hex digit") from None

    def text(self) -> str:
        """Prefix and lower-case hex, as sent and stored."""
        return f"{self.prefix}:{self.raw.hex()}"

    @property
    def is_zero(self) -> bool:
        return self.raw == _ZERO[self.size]


class _PublicKey(_Key):
    __slots__ = ()

    def short(self) -> str:
        """The form for logs: ``[B6N8v]``, the first five base64 characters."""
        return f"[{b64encode(self.raw[:6]).decode()[:5]}]"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short()})"

    __str__ = short


class _PrivateKey(_Key):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<private>)"

    __str__ = __repr__


class MachinePublic(_PublicKey):
    """Identifies a device to the coordination server; also the type of the server's own key."""

    __slots__ = ()
    prefix = "mkey"


class NodePublic(_PublicKey):
    """The WireGuard and DERP identity of a node."""

    __slots__ = ()
    prefix = "nodekey"


class DiscoPublic(_PublicKey):
    """Names a running process to its peers during path discovery."""

    __slots__ = ()
    prefix = "discokey"

    def short(self) -> str:
        """The form for logs: ``d:`` and the first eight bytes."""
        return f"d:{self.raw[:8].hex()}"

    __str__ = short


class ChallengePublic(_PublicKey):
    """Sent by the server in the early payload, fresh per connection."""

    __slots__ = ()
    prefix = "chalpub"


class LockPublic(_PublicKey):
    """Ed25519 key of tailnet lock; ``tlpub:`` is accepted on input."""

    __slots__ = ()
    prefix = "nlpub"
    aliases = ("tlpub",)


class _X25519Private(_PrivateKey):
    __slots__ = ()
    prefix = "privkey"

    @classmethod
    def generate(cls, random: Random = os.urandom) -> Self:
        """A new key from 32 random bytes, clamped."""
        return cls(clamp(random(32)))


class MachinePrivate(_X25519Private):
    __slots__ = ()

    def public(self) -> MachinePublic:
        return MachinePublic(x25519_public(self.raw))


class NodePrivate(_X25519Private):
    __slots__ = ()

    def public(self) -> NodePublic:
        return NodePublic(x25519_public(self.raw))


class DiscoPrivate(_X25519Private):
    __slots__ = ()

    def public(self) -> DiscoPublic:
        return DiscoPublic(x25519_public(self.raw))


class ChallengePrivate(_X25519Private):
    __slots__ = ()

    def public(self) -> ChallengePublic:
        return ChallengePublic(x25519_public(self.raw))


class LockPrivate(_PrivateKey):
    """Ed25519 private key of tailnet lock: 32 bytes of seed, then the 32 public bytes."""

    __slots__ = ()
    prefix = "nlpriv"
    size = 64

    @classmethod
    def generate(cls, random: Random = os.urandom) -> Self:
        import pysodium

        public, private = pysodium.crypto_sign_seed_keypair(random(32))
        del public
        return cls(private)

    def public(self) -> LockPublic:
        return LockPublic(self.raw[32:])
