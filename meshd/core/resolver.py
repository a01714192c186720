"""What becomes of a DNS question: an answer of our own, or somebody who is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshd.core.dnscompile import ResolverConfig
from meshd.core.meshnames import MeshNames, is_service_browsing, parents
from meshd.core.netmap import Netmap
from meshd.wire.control import Resolver
from meshd.wire.dnsmessage import (
    BAD_VERSION,
    CLASS_IN,
    NAME_ERROR,
    NOT_IMPLEMENTED,
    REFUSED,
    SERVER_FAILURE,
    SOA,
    SUCCESS,
    TRANSFERS,
    Query,
    Record,
    encode_response,
    soa_data,
)

NEGATIVE_TTL_S = 10  # a name that is not there may be the new name of a node soon
_SERIAL = 1  # nobody copies our zones


class Answer(NamedTuple):
    """Our own answer. ``zone`` is the zone of ours that a "no" is about; ``own`` when it is about a name of ours."""

    code: int
    records: Sequence[Record] = ()
    zone: str | None = None
    own: bool = False

    def encode(self, query: Query) -> bytes:
        """As a response to this question."""
        # How long "no" may be remembered (RFC 2308 3).
        said = Record(SOA, NEGATIVE_TTL_S, soa_data(self.zone, _SERIAL, NEGATIVE_TTL_S)) if self.zone else None
        authority = [(self.zone, said)] if self.zone and said is not None else []
        return encode_response(query, self.code, self.records, authority=authority, authoritative=self.own)


class Forward(NamedTuple):
    """Ask one of these."""

    resolvers: tuple[Resolver, ...]


class ResolverTable:
    """A `ResolverConfig`, made ready for looking up: the cost grows with the labels of a name only."""

    def __init__(self, config: ResolverConfig) -> None:
        self.config = config
        self._routes = {suffix: chosen for suffix, chosen in config.routes.items() if chosen}
        self._zones = frozenset(config.local_domains) | {
            suffix for suffix, chosen in config.routes.items() if suffix and not chosen
        }

    def find(self, name: str) -> str | tuple[Resolver, ...]:
        """Of the longest suffix that a normal name has: the zone of ours, or who is asked; an empty tuple when nobody
        is."""
        for suffix in (name, *parents(name)):
            if suffix in self._routes:
                return self._routes[suffix]
            if suffix in self._zones:
                return suffix
        return self._routes.get("", ())


class ResolverDecision:
    """Decides on questions by a configuration and the netmap of the moment."""

    def __init__(self) -> None:
        self._names = MeshNames()
        self._table = ResolverTable(ResolverConfig())

    @property
    def config(self) -> ResolverConfig:
        return self._table.config

    def configure(self, config: ResolverConfig) -> None:
        """From the next question on."""
        self._table = ResolverTable(config)

    def resolvers_for(self, name: str) -> tuple[Resolver, ...]:
        """Who is asked about a normal name that we do not know ourselves."""
        found = self._table.find(name)
        return () if isinstance(found, str) else found

    def decide(self, netmap: Netmap | None, query: Query) -> Answer | Forward:
        """DN-04, DN-07, DN-12."""
        if query.edns_version:
            return Answer(BAD_VERSION)
        if query.opcode or query.kind in TRANSFERS:
            return Answer(NOT_IMPLEMENTED)
        if query.rrclass != CLASS_IN:
            return Answer(REFUSED)
        return self._decide(netmap, query.name, query.kind)

    def _decide(self, netmap: Netmap | None, name: str, kind: int) -> Answer | Forward:
        if name == "onion" or name.endswith(".onion"):
            return Answer(NAME_ERROR)  # RFC 7686 2: such names never leave the host
        found = self._names.records(netmap, name, kind)
        if found:
            return Answer(SUCCESS, found, own=True)
        target = self._table.find(name)
        zone = target if isinstance(target, str) else None
        if found is not None:
            return Answer(SUCCESS, (), zone, own=True)
        if zone is not None:
            # The zone itself exists, for it has names below it.
            return Answer(SUCCESS if name == zone else NAME_ERROR, (), zone, own=True)
        if is_service_browsing(name):
            return Answer(NAME_ERROR)
        return Forward(target) if isinstance(target, tuple) and target else Answer(SERVER_FAILURE)
