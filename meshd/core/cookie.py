"""MAC1, MAC2 and cookies: proof of knowing whom one talks to, and of owning a source address.

WireGuard paper 5.4.4 and 5.4.7. Messages of the first two types end in mac1 and mac2, 16 bytes each;
the functions here work on encoded messages.
"""

from __future__ import annotations

from collections.abc import Callable

from meshd.base.crypto import blake2s, blake2s_mac, same, xaead_open, xaead_seal
from meshd.wire.wireguard import CookieReply

COOKIE_REFRESH_S = 120.0  # life of a cookie, and of the secret that cookies are made from
UNDER_LOAD_DEPTH = 128  # waiting handshake messages that make us ask for cookies
UNDER_LOAD_STICKY_S = 1.0

_MAC_SIZE = 16
_MAC1_LABEL = b"mac1----"
_COOKIE_LABEL = b"cookie--"

Random = Callable[[int], bytes]


def mac1_key(public: bytes) -> bytes:
    """The key of mac1 in messages to the owner of ``public``."""
    return blake2s(_MAC1_LABEL, public)


def cookie_key(public: bytes) -> bytes:
    """The key of cookie replies from the owner of ``public``."""
    return blake2s(_COOKIE_LABEL, public)


class CookieChecker:
    """Our side as the receiver of handshake messages."""

    __slots__ = ("_cookie_key", "_mac1_key", "_random", "_secret", "_secret_made")

    def __init__(self, public: bytes, random: Random) -> None:
        self._mac1_key = mac1_key(public)
        self._cookie_key = cookie_key(public)
        self._random = random
        self._secret = b""
        self._secret_made = 0.0

    def check_mac1(self, message: bytes) -> bool:
        """Whether the sender knows our public key; messages that fail this get no answer at all."""
        return same(blake2s_mac(self._mac1_key, message[: -2 * _MAC_SIZE]), message[-2 * _MAC_SIZE : -_MAC_SIZE])

    def check_mac2(self, message: bytes, source: bytes, now: float) -> bool:
        """Whether the sender holds the cookie we gave to ``source`` (address and port, or relay and key)."""
        if not self._secret or now - self._secret_made > COOKIE_REFRESH_S:
            return False
        cookie = blake2s_mac(self._secret, source)
        return same(blake2s_mac(cookie, message[:-_MAC_SIZE]), message[-_MAC_SIZE:])

    def create_reply(self, message: bytes, sender_index: int, source: bytes, now: float) -> CookieReply:
        """The answer to ``message``: a cookie that only its sender can decrypt."""
        if not self._secret or now - self._secret_made > COOKIE_REFRESH_S:
            self._secret = self._random(32)
            self._secret_made = now
        nonce = self._random(24)
        cookie = blake2s_mac(self._secret, source)
        mac1 = message[-2 * _MAC_SIZE : -_MAC_SIZE]
        return CookieReply(receiver=sender_index, nonce=nonce, cookie=xaead_seal(self._cookie_key, nonce, cookie, mac1))


class CookieJar:
    """Our side as the sender of handshake messages to one peer."""

    __slots__ = ("_cookie", "_cookie_received", "_last_mac1", "_public")

    def __init__(self, peer_public: bytes) -> None:
        self._public = peer_public
        self._cookie = b""
        self._cookie_received = 0.0
        self._last_mac1 = b""

    def sign(self, message: bytes, now: float) -> bytes:
        """``message`` with mac1 filled in, and mac2 while a cookie of the peer is fresh."""
        body = message[: -2 * _MAC_SIZE]
        self._last_mac1 = blake2s_mac(mac1_key(self._public), body)
        signed = body + self._last_mac1
        if self._cookie and now - self._cookie_received < COOKIE_REFRESH_S:
            return signed + blake2s_mac(self._cookie, signed)
        return signed + bytes(_MAC_SIZE)

    def accept_reply(self, reply: CookieReply, now: float) -> bool:
        """Keep the cookie for the next message; False when it does not answer the last one we sent."""
        if not self._last_mac1:
            return False
        cookie = xaead_open(cookie_key(self._public), reply.nonce, reply.cookie, self._last_mac1)
        if cookie is None:
            return False
        self._cookie = cookie
        self._cookie_received = now
        self._last_mac1 = b""
        return True


class LoadGauge:
    """Decides when cookies are asked for: a deep queue now, or within the last second."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = float("-inf")

    def under_load(self, depth: int, now: float) -> bool:
        """``depth`` is how many handshake messages wait."""
        if depth >= UNDER_LOAD_DEPTH:
            self._until = now + UNDER_LOAD_STICKY_S
            return True
        return now < self._until
