"""Addresses, endpoints, keys and times from the text that control servers write, and into it.

Each function knows the usual form and gives None for everything else, wrong or merely unusual: the caller then takes
the long way, which also says what is wrong. Network maps hold tens of thousands of such texts.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar, final

_EndpointT = TypeVar("_EndpointT", bound=tuple[Any, int])

def host_of(text: str, /) -> IPv4Address | IPv6Address | None:
    """The address of ``1.2.3.4/32`` or ``1::2/128``. IPv4-mapped stays IPv6."""

def node_prefixes(texts: tuple[str, ...], kind4: type, kind6: type, /) -> tuple[Any, ...] | None:
    """One ``kind4`` or ``kind6`` for each text, with ``network_address`` set, when each is a /32 of 100.64.0.0/10 or a
    /128 of fd7a:115c:a1e0::/48, none stands there twice, and none has a low half of ::53 or is 100.100.100.100, which
    stand for services."""

def host_texts(prefixes: tuple[IPv4Network | IPv6Network, ...], /) -> list[str]:
    """The network address of each, as ``str`` writes it."""

def endpoint_of(text: str, /) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Address and port of ``1.2.3.4:5`` or ``[1::2]:5``. IPv4-mapped becomes IPv4."""

def endpoints_of(texts: tuple[str, ...], kind: type[_EndpointT], /) -> tuple[_EndpointT, ...] | None:
    """A ``kind`` of address and port for each text, when each can be sent to: a port, and an address that is neither
    unspecified nor multicast."""

def key_of(text: str, prefix: str, /) -> bytes | None:
    """The 32 bytes of ``prefix:<64 hex digits>``."""

def utc_of(text: str, /) -> float | None:
    """Unix seconds of ``2006-01-02T15:04:05Z``, from 1970 on."""

def utc_text(wall: float, /) -> str | None:
    """``2006-01-02T15:04:05Z`` of unix seconds; None before 1970, after 9999, and with a fraction."""

def quoted_plain(text: str, /) -> str | None:
    """A JSON string; None for text with anything that must or may be escaped."""

@final
class TextForms:
    """Which attributes of an object hold text of which form: name, form, and a default that is known to be right.

    Forms are ``prefix``, ``endpoint``, ``time``, and the prefixes of keys (``nodekey``). An attribute holds a text,
    a tuple of texts, or None.
    """

    def __init__(self, forms: Iterable[tuple[str, str, object]]) -> None: ...
    def unusual(self, value: object, /) -> str | None:
        """The first attribute with a text that is not of the usual form; None when there is none."""
