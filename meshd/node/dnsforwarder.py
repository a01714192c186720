"""Asking other resolvers: several of them against each other, and every question that several ask only once.

Equal questions that are under way share one exchange. This keeps a flood of one question from becoming a flood to
the resolvers, leaves whoever wants to forge an answer one number and one port to guess at a time (RFC 5452 5), and
ends every loop: a question that comes back to us waits for itself and fails in time.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.dnsattempts import Attempt, Way, plan_attempts
from meshd.io.dnsexchange import UdpQuestion, ask_tcp, is_answer
from meshd.wire import dnsmessage as dns
from meshd.wire import dnsresponse
from meshd.wire.control import Resolver

if TYPE_CHECKING:
    from meshd.io.doh import DohClients

log = get_logger(__name__)

PATIENCE_S = 5.0  # of one question
TCP_HEAD_START_S = 2.0  # of UDP before TCP is tried as well
DOUBT_S = 30.0  # how long a resolver that was slower than another one is asked after it
MAX_UNDER_WAY = 512
"""Exchanges at a time: each holds a socket or two."""
MAX_DOUBTS = 64
LONGEST_UDP = 4095  # bytes, where TCP is not to be used
_TRANSIENT = (dns.SERVER_FAILURE, dns.REFUSED)


class _How(NamedTuple):
    """What all attempts at a question have in common. ``more``: the asker takes more than fits UDP."""

    question: bytes
    tcp: bool
    beside: bool
    more: bool = False


class Forwarder:
    """``report`` is told which resolvers gave no answer, or "" when one did. ``retries_tcp`` tells whether the network
    lets us use TCP where UDP is not enough. ``is_peer`` tells whose addresses may be asked by HTTP: a network that has
    us send requests to any other would reach services that trust this host."""

    def __init__(
        self,
        counters: Counter[str],
        report: Callable[[str], None],
        retries_tcp: Callable[[], bool] = lambda: True,
        is_peer: Callable[[IPAddress], bool] = lambda _: False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._counters = counters
        self._report = report
        self._retries_tcp = retries_tcp
        self._is_peer = is_peer
        self._random = random
        self._under_way: dict[tuple[object, ...], asyncio.Task[bytes]] = {}
        self._doubts: dict[AddrPort, float] = {}
        self._doh: DohClients | None = None

    @property
    def under_way(self) -> int:
        """Exchanges that wait for an answer."""
        return len(self._under_way)

    async def ask(
        self, query: dns.Query, message: bytes, resolvers: Sequence[Resolver], *, tcp: bool, beside: bool = False
    ) -> bytes:
        """The response for the asker of ``message``, whose question is ``query``; one of our own when there is none
        to be had. ``tcp``: the asker takes answers of any length. ``beside``: the question does not go through the
        network, whatever the routes say."""
        how = _How(query.question, tcp=tcp, beside=beside)
        question = dnsresponse.folded(query.question)
        key = (message[2:4], question, message[dns.HEADER.size + len(query.question) :], tcp, beside)
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                self._counters["dns_refused_too_many"] += 1
                return dns.encode_response(query, dns.SERVER_FAILURE)
            self._counters["dns_forwarded"] += 1
            task = self._under_way[key] = self._loop.create_task(self._exchange(query, message, resolvers, how))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        else:
            self._counters["dns_joined"] += 1
        found = await asyncio.shield(task)
        if not dnsresponse.has_question(found):
            return dns.encode_response(query, dnsresponse.code_of(found))
        return dnsresponse.for_asker(found, query.number, query.question)

    def close(self) -> None:
        for task in list(self._under_way.values()):
            task.cancel()
        if self._doh is not None:
            self._doh.close()

    async def _exchange(self, query: dns.Query, message: bytes, resolvers: Sequence[Resolver], how: _How) -> bytes:
        attempts = plan_attempts(resolvers, _is_own, self._is_doubtful)
        attempts = [a for a in attempts if a.way is not Way.PEER or self._is_peer(a.addresses[0].ip)]
        if how.beside:
            attempts = [attempt for attempt in attempts if attempt.way is Way.PLAIN]
        if not attempts:
            self._counters["dns_no_resolver"] += 1
            return dns.encode_response(query, dns.SERVER_FAILURE)
        log.debug("dns_asks", extra=kv(resolvers=", ".join(attempt.name for attempt in attempts), bytes=len(message)))
        limit = dns.OWN_PAYLOAD if self._retries_tcp() else LONGEST_UDP
        asked = self._random(2) + dns.with_payload(message, query, limit)[2:]
        how = how._replace(more=how.tcp or query.payload > limit)
        failed: list[bytes] = []
        found = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await self._race(attempts, asked, how, failed)
        except TimeoutError:
            self._counters["dns_forward_timeouts"] += 1
        if found is not None:
            self._counters["dns_forward_answers"] += 1
            self._report("")
            return found
        self._counters["dns_forward_failures"] += 1
        if not failed:
            names = ", ".join(attempt.name for attempt in attempts)
            self._report(names)
            log.info("dns_unanswered", extra=kv(resolvers=names))
            return dns.encode_response(query, dns.SERVER_FAILURE)
        self._report("")  # they are there, they only do not want to
        return min(failed, key=lambda response: _TRANSIENT.index(dnsresponse.code_of(response)))

    async def _race(self, attempts: list[Attempt], asked: bytes, how: _How, failed: list[bytes]) -> bytes | None:
        """The first answer; None when every resolver failed. The next one is asked when its time comes, or when
        another one failed. Failures that are responses go to ``failed``."""
        started = self._loop.time()
        waiting = deque(attempts)
        running: dict[asyncio.Task[bytes], Attempt] = {}  # in the order in which they began
        hurry = True
        try:
            while waiting or running:
                while waiting and (hurry or waiting[0].after_s <= self._loop.time() - started):
                    attempt = waiting.popleft()
                    task = self._loop.create_task(self._attempt(attempt, asked, how))
                    running[task] = attempt
                    hurry = False
                pause = max(waiting[0].after_s - (self._loop.time() - started), 0) if waiting else None
                await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    attempt = running[task]
                    response = self._outcome(task, attempt)
                    if response is not None and dnsresponse.code_of(response) not in _TRANSIENT:
                        self._won(attempt, running.values())
                        return response
                    del running[task]
                    self._doubt(attempt)
                    if response is not None:
                        failed.append(response)
                    hurry = True
        except asyncio.CancelledError:
            for attempt in running.values():
                self._doubt(attempt)
            raise
        finally:
            for task in running:
                task.cancel()
                task.add_done_callback(_forget)
        return None

    def _won(self, winner: Attempt, running: Iterable[Attempt]) -> None:
        """Whoever was asked earlier and is still silent is asked later next time."""
        for attempt in running:
            if attempt is winner:
                break
            self._doubt(attempt)
        self._doubts.pop(winner.addresses[0], None)

    def _outcome(self, task: asyncio.Task[bytes], attempt: Attempt) -> bytes | None:
        error = task.exception()
        if error is None:
            return task.result()
        if not isinstance(error, OSError | MeshdError):
            raise error
        log.debug("resolver_failed", extra=kv(addr=attempt.name, reason=error))
        return None

    async def _attempt(self, attempt: Attempt, asked: bytes, how: _How) -> bytes:
        if attempt.way is Way.PLAIN:
            return await self._plain(attempt.addresses[0], asked, how)
        from meshd.io.doh import DohClients, ask_peer

        self._counters["dns_asked_by_http"] += 1
        if attempt.way is Way.PEER:
            response = await ask_peer(attempt.url, attempt.addresses[0], asked)
        else:
            if self._doh is None:
                self._doh = DohClients()
            response = await self._doh.ask(attempt.url, attempt.addresses, asked)
        if not is_answer(asked, how.question, response):
            raise ConnectionError("the resolver answered another question")
        return response

    async def _plain(self, server: AddrPort, asked: bytes, how: _How) -> bytes:
        """UDP and, when its answer is cut short or does not come, TCP; both for those who came by TCP, which is mostly
        because they have had an answer that was cut short."""
        self._counters["dns_asked_by_udp"] += 1
        udp = UdpQuestion(server, asked, how.question, self._stray, beside=how.beside)
        try:
            if not self._retries_tcp():
                return await udp.answered
            await asyncio.wait([udp.answered], timeout=0.0 if how.tcp else TCP_HEAD_START_S)
            if udp.answered.done() and (response := _whole(udp.answered, how)) is not None:
                return response
            return await self._tcp_too(server, asked, how, udp.answered)
        finally:
            udp.close()

    async def _tcp_too(self, server: AddrPort, asked: bytes, how: _How, udp: asyncio.Future[bytes]) -> bytes:
        """TCP, while an answer over UDP may still come; what comes over UDP is better than nothing."""
        self._counters["dns_asked_by_tcp"] += 1
        tcp = self._loop.create_task(ask_tcp(server, asked, how.question, beside=how.beside))
        try:
            await asyncio.wait([udp, tcp] if not udp.done() else [tcp], return_when=asyncio.FIRST_COMPLETED)
            if not tcp.done() and (response := _whole(udp, how)) is not None:
                return response
            try:
                return await tcp
            except OSError:
                return await udp
        finally:
            tcp.cancel()
            tcp.add_done_callback(_forget)

    def _stray(self) -> None:
        self._counters["dns_stray_datagrams"] += 1

    def _is_doubtful(self, server: AddrPort) -> bool:
        return self._doubts.get(server, 0.0) > self._loop.time()

    def _doubt(self, attempt: Attempt) -> None:
        if attempt.way is Way.PLAIN:
            self._doubts.pop(attempt.addresses[0], None)
            if len(self._doubts) >= MAX_DOUBTS:
                del self._doubts[next(iter(self._doubts))]
            self._doubts[attempt.addresses[0]] = self._loop.time() + DOUBT_S


def _whole(answered: asyncio.Future[bytes], how: _How) -> bytes | None:
    """The response, unless there is none, or more of it to be had over TCP."""
    if answered.exception() is not None:
        return None
    response = answered.result()
    return None if how.more and dnsresponse.is_truncated(response) else response


def _forget(task: asyncio.Task[bytes]) -> None:
    """How an attempt ends that nobody waits for any more is of no interest."""
    if not task.cancelled():
        task.exception()


def _is_own(address: IPAddress) -> bool:
    """We ourselves: asking this resolver would come back to it."""
    return address in (SERVICE_V4, SERVICE_V6)
