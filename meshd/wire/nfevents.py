"""Notifications about nftables rule sets (linux/netfilter/nfnetlink.h, nf_tables.h).

iptables of today speaks nftables too, so its changes are told as well; those of the older kind are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from meshd.wire.netlink import attributes, messages

NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7

_SUBSYSTEM = 10  # of nftables, the high byte of a message type
_HEADER_BYTES = 4  # nfgenmsg: family, version, resource
_NEWCHAIN, _DELTABLE, _DELCHAIN, _DELRULE = 3, 2, 5, 8
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_ATTR_TABLE, _ATTR_CHAIN_NAME, _ATTR_CHAIN_HOOK, _ATTR_RULE_CHAIN = 1, 3, 4, 2


class RulesetEvent(NamedTuple):
    """Something went away, or a chain came that the kernel calls (``hooked``). ``chain`` is "" for a whole table."""

    family: str
    table: str
    chain: str
    gone: bool


def events(data: bytes) -> Iterator[RulesetEvent]:
    """The events of one datagram from the kernel that concern others than who adds rules. Raises WireError."""
    for message in messages(data):
        subsystem, kind = divmod(message.kind, 256)
        if subsystem != _SUBSYSTEM or kind not in (_NEWCHAIN, _DELTABLE, _DELCHAIN, _DELRULE):
            continue
        if len(message.body) < _HEADER_BYTES:
            continue
        family = _FAMILIES.get(message.body[0], "")
        found = attributes(message.body, _HEADER_BYTES)
        if not family or _ATTR_TABLE not in found:
            continue
        if kind == _NEWCHAIN and _ATTR_CHAIN_HOOK not in found:
            continue
        named = {_DELRULE: _ATTR_RULE_CHAIN, _DELTABLE: 0}.get(kind, _ATTR_CHAIN_NAME)
        yield RulesetEvent(family, _text(found[_ATTR_TABLE]), _text(found.get(named, b"")), kind != _NEWCHAIN)


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")
