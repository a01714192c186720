"""The resolver of this node: names of the network from the netmap, all others from those in charge of them."""

from __future__ import annotations

import os
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from meshd.base.addr import IPAddress
from meshd.base.errors import MeshdError, WireError
from meshd.base.switch import switch
from meshd.core.controlknobs import KNOBS
from meshd.core.dnscompile import ResolverConfig
from meshd.core.netmap import Netmap
from meshd.core.resolver import Answer, Forward, ResolverDecision
from meshd.node.dnsforwarder import LONGEST_UDP, Forwarder
from meshd.wire import dnsmessage as dns
from meshd.wire import dnsresponse
from meshd.wire.control import Resolver, encode

JSON = dict[str, Any]

_NO_TCP = KNOBS["DisableDNSForwarderTCPRetries"]
_NO_TCP_SWITCH = "TS_DNS_FORWARD_SKIP_TCP_RETRY"


class Asking(NamedTuple):
    """A question that others have to answer; give it to `NodeResolver.ask`."""

    query: dns.Query
    message: bytes
    resolvers: tuple[Resolver, ...]
    tcp: bool
    beside: bool = False


class NodeResolver:
    """``netmap`` is the one of the moment; ``report`` tells which resolvers gave no answer, "" when one did.
    ``beside`` gives the resolvers that are asked for a name beside the tunnel, none for most names."""

    def __init__(
        self,
        netmap: Callable[[], Netmap | None],
        report: Callable[[str], None],
        environment: Mapping[str, str] = os.environ,
        beside: Callable[[str], tuple[Resolver, ...]] = lambda _: (),
    ) -> None:
        self._netmap = netmap
        self._beside = beside
        self._decision = ResolverDecision()
        self._tcp_forbidden = switch(environment, _NO_TCP_SWITCH)
        self.counters: Counter[str] = Counter()
        self._forwarder = Forwarder(self.counters, report, self._retries_tcp, self._is_peer)

    @property
    def config(self) -> ResolverConfig:
        return self._decision.config

    def configure(self, config: ResolverConfig) -> None:
        """From the next question on."""
        self._decision.configure(config)

    def close(self) -> None:
        self._forwarder.close()

    def look(self, message: bytes, *, tcp: bool) -> bytes | Asking | None:
        """Our own response to a message, or whom to `ask`; None for what deserves no answer. ``tcp``: an answer may be
        of any length."""
        self.counters["dns_questions"] += 1
        try:
            query = dns.decode_query(message)
        except WireError:
            self.counters["dns_malformed"] += 1
            return dns.refusal(message, dns.FORMAT_ERROR)
        found = self._decision.decide(self._netmap(), query)
        direct = self._beside(query.name) if isinstance(found, Forward) or not found.own else ()
        if direct and query.rrclass == dns.CLASS_IN:
            return Asking(query, message, direct, tcp, beside=True)
        if isinstance(found, Answer):
            self.counters["dns_answered_by_us" if found.own else "dns_refused"] += 1
            return _fitting(found.encode(query), query, tcp=tcp)
        return Asking(query, message, found.resolvers, tcp)

    async def ask(self, asking: Asking) -> bytes:
        """The response of others, or that there is none."""
        query, message, resolvers, tcp, beside = asking
        response = await self._forwarder.ask(query, message, resolvers, tcp=tcp, beside=beside)
        return _fitting(response, query, tcp=tcp)

    async def query_json(self, name: str, kind: str) -> JSON:
        """``{Bytes, Resolvers}``: the response, and who is asked about such names. Raises MeshdError "invalid"."""
        number = dns.TYPES.get(kind.strip().upper() or "A")
        if number is None:
            raise MeshdError(f"unknown DNS message type: {kind.strip().upper()[:20]}", code="invalid")
        try:
            message = dns.encode_query(1, name, number)
            query = dns.decode_query(message)
        except WireError as error:
            raise MeshdError(str(error), code="invalid") from None
        found = self.look(message, tcp=True)
        response = await self.ask(found) if isinstance(found, Asking) else found
        shown = [msgspec.json.decode(encode(resolver)) for resolver in self._decision.resolvers_for(query.name)]
        return {"Bytes": b64encode(response or b"").decode(), "Resolvers": shown or None}

    def _retries_tcp(self) -> bool:
        netmap = self._netmap()
        return not self._tcp_forbidden and (netmap is None or not netmap.self_node.has_cap(_NO_TCP))

    def _is_peer(self, address: IPAddress) -> bool:
        netmap = self._netmap()
        return netmap is not None and netmap.peer_by_ip(address) is not None


def _fitting(response: bytes, query: dns.Query, *, tcp: bool) -> bytes:
    return response if tcp else dnsresponse.cut(response, query.question, min(query.udp_limit, LONGEST_UDP))
