"""In which order, and with which head starts, the resolvers in charge of a question are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

from meshd.base.addr import AddrPort, IPAddress, parse_ip, parse_zoned_ip
from meshd.core.publicdns import doh_addresses, doh_url
from meshd.wire.control import Resolver

STAGGER_S = 0.2  # a resolver that answers needs no help of the next
DOH_HEAD_START_S = 0.5  # before a public resolver that is asked over HTTPS is asked in the clear
MAX_ATTEMPTS = 8  # of one question
DNS_PORT, HTTPS_PORT = 53, 443
_PEER, _SECURE = "http://", "https://"


class Way(Enum):
    """How a resolver is asked."""

    PLAIN = "plain"
    """UDP, and TCP where that is not enough."""
    PEER = "peer"
    """HTTP inside the network: an exit node."""
    HTTPS = "https"


class Attempt(NamedTuple):
    """One resolver and when its turn comes, ``after_s`` from the start at the latest. ``addresses``: one of PLAIN and
    PEER, any of HTTPS."""

    after_s: float
    way: Way
    addresses: tuple[AddrPort, ...]
    url: str = ""

    @property
    def name(self) -> str:
        """For logs and health."""
        return self.url or str(self.addresses[0])


def plan_attempts(
    resolvers: Iterable[Resolver],
    is_own: Callable[[IPAddress], bool],
    is_doubtful: Callable[[AddrPort], bool] = lambda _: False,
) -> list[Attempt]:
    """Attempts in their order. Resolvers that we cannot ask are left out, as are addresses of this very resolver
    (``is_own``); ``is_doubtful`` ones, which lately did not answer, come last.

    Public resolvers that are known to answer over HTTPS get a head start to do so (DN-12).
    """
    chosen = list(resolvers)
    attempts: list[Attempt] = []
    plain: list[AddrPort] = []
    public: dict[tuple[str, int], int] = {}
    later: list[Attempt] = []
    for resolver in chosen:
        address = resolver_address(resolver.addr)
        if address is None:
            other = _by_url(resolver)
            if other is not None and not any(is_own(where.ip) for where in other.addresses):
                attempts.append(other)
            continue
        if is_own(address.ip):
            continue
        known = doh_url(address.ip) if address.port == DNS_PORT else None
        if known is None:
            plain.append(address)
            continue
        url, only_https = known
        if all(attempt.url != url for attempt in attempts):
            attempts.append(_https(0.0, url, doh_addresses(url)))
        if not only_https:
            before = public.get((url, address.ip.version), 0)
            public[url, address.ip.version] = before + 1
            later.append(Attempt(DOH_HEAD_START_S + STAGGER_S * before, Way.PLAIN, (address,)))
    plain = sorted(dict.fromkeys(plain), key=is_doubtful)
    attempts += [Attempt(STAGGER_S * index, Way.PLAIN, (address,)) for index, address in enumerate(plain)]
    return sorted([*attempts, *later], key=lambda attempt: attempt.after_s)[:MAX_ATTEMPTS]


def resolver_address(text: str) -> AddrPort | None:
    """The address in an ``Addr`` that is one, with or without a port; those of the host may have a zone."""
    try:
        return AddrPort(parse_zoned_ip(text), DNS_PORT)
    except ValueError:
        pass
    try:
        return AddrPort.parse(text)
    except ValueError:
        return None


def _by_url(resolver: Resolver) -> Attempt | None:
    text = resolver.addr
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        port = urlsplit(text).port or HTTPS_PORT
    except ValueError:
        return None
    if text.startswith(_PEER):
        try:
            where = AddrPort.parse(text.removeprefix(_PEER).partition("/")[0])
        except ValueError:
            return None  # peers are named by address
        return Attempt(0.0, Way.PEER, (where,), text)
    if text.startswith(_SECURE):
        addresses = doh_addresses(text) or tuple(_parsed(resolver.bootstrap_resolution))
        return _https(0.0, text, addresses, port) if addresses else None
    return None


def _https(after_s: float, url: str, addresses: tuple[IPAddress, ...], port: int = HTTPS_PORT) -> Attempt:
    return Attempt(after_s, Way.HTTPS, tuple(AddrPort(address, port) for address in addresses), url)


def _parsed(texts: Iterable[object]) -> Iterable[IPAddress]:
    for text in texts:
        try:
            yield parse_ip(str(text))
        except ValueError:
            continue
