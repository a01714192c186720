"""Keeps the host's resolver pointed where it should, beside the event loop, and notices when it no longer is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.dnscompile import OSConfig, ResolverConfig, compile_dns
from meshd.core.dnsplan import DNSPlan
from meshd.core.dnsway import Choice, Facts, Way, choose_way
from meshd.host.linux.dnsfacts import HostDNS, foreign_problem, look_at_host
from meshd.host.linux.inotify import FileWatch
from meshd.host.resolvconf import host_resolvers
from meshd.io.threads import start_thread

log = get_logger(__name__)

SETTLE_S, MAX_SETTLE_S = 1.0, 60.0
QUIET_S = 2 * MAX_SETTLE_S  # after this the other program has given up, or wrote for a reason of its own
POLL_S = 30.0  # where the kernel does not tell of changes, and after a failure


class Outcome(msgspec.Struct, frozen=True):
    """How it went. Problems are texts for the user, "" for none."""

    read_problem: str = ""
    """The resolvers of the host could not be learned, so nothing was changed."""
    set_problem: str = ""
    manager_problem: str = ""
    overwritten: bool = False
    """Another program wrote over /etc/resolv.conf a short while ago."""
    way: str = ""
    base: OSConfig | None = None
    """What the host has without us, as far as it was looked at."""
    applied: OSConfig = msgspec.field(default_factory=OSConfig)


class _Wish(msgspec.Struct, frozen=True):
    plan: DNSPlan = msgspec.field(default_factory=DNSPlan)
    hosts: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.plan.resolves or self.plan.search)


class DnsKeeper:
    """``want`` says what there should be; ``resolver`` is told, in the loop, what our own resolver must do for it, and
    ``done`` how it went.

    Files are synced and programs run, so all of it happens in a thread, one at a time. ``close`` waits for it and
    gives the host its resolvers back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        open_way: Callable[[Way], HostDNS],
        resolver: Callable[[ResolverConfig], None],
        done: Callable[[Outcome], None],
        look: Callable[[], Facts] = look_at_host,
        forbidden: Callable[[], str] = foreign_problem,
    ) -> None:
        self._loop = loop
        self._open_way = open_way
        self._resolver = resolver
        self._done = done
        self._look = look
        self._forbidden = forbidden
        self._wish = _Wish()
        self._way: HostDNS | None = None
        self._choice = Choice(Way.DIRECT)
        self._chosen_by: bytes | None = None
        self._state = Outcome()
        self._restored = False
        self._thread: threading.Thread | None = None
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._settle = SETTLE_S
        self._closed = False
        self._watch: FileWatch | None = None

    @property
    def outcome(self) -> Outcome:
        """How it went last time."""
        return self._state

    def want(self, plan: DNSPlan, hosts: tuple[str, ...]) -> None:
        """Bring the host there, and keep it there. An empty plan leaves it alone, as it was."""
        wish = _Wish(plan, hosts)
        if wish != self._wish:
            self._wish = wish
            self._work()

    def look(self) -> None:
        """The networks of the host are others now, and maybe its resolvers."""
        if not self._wish.is_empty or self._way is not None:
            self._work()

    def close(self) -> None:
        self._closed = True
        self._disarm()
        if self._quiet is not None:
            self._quiet.cancel()
        if self._watch is not None:
            self._watch.close()
        try:
            if self._thread is not None:
                self._thread.join()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._way is not None:
            try:
                self._way.close()
            except MeshdError as error:
                log.error("dns_not_restored", extra=kv(reason=error.message, action="the next start tries again"))

    # -- in the thread --------------------------------------------------------------------------------------

    def _apply(self, wish: _Wish) -> None:
        try:
            outcome = self._leave() if wish.is_empty else self._bring(wish)
        except MeshdError as error:
            outcome = msgspec.structs.replace(self._state, set_problem=str(error))
        except Exception as error:  # a bug: names matter less than the node
            log.error("internal_error", exc_info=error, extra=kv(what=type(error).__name__))
            outcome = msgspec.structs.replace(self._state, set_problem=f"internal error ({error})")
        self._loop.call_soon_threadsafe(self._applied, outcome)

    def _leave(self) -> Outcome:
        if self._way is not None:
            self._way.close()
            self._way = None
        self._tell_resolver(ResolverConfig())
        return Outcome()

    def _bring(self, wish: _Wish) -> Outcome:
        problem = self._forbidden()
        if problem:
            try:
                machine = host_resolvers()
            except MeshdError as error:
                log.info("host_resolvers_unknown", extra=kv(reason=error.message))
                machine = OSConfig()
            self._tell_resolver(compile_dns(wish.plan, wish.hosts, can_split=False, base=machine)[0])
            return Outcome(set_problem=problem, base=machine)
        way = self._right_way()
        lost = way.lost()
        base, read_problem = None, ""
        try:
            base = way.base()
        except MeshdError as error:
            read_problem = error.message
        outcome = Outcome(way=self._choice.way.value, manager_problem=self._choice.problem, base=base)
        try:
            ours, system = compile_dns(wish.plan, wish.hosts, can_split=way.can_split, base=base)
        except MeshdError as error:
            return msgspec.structs.replace(
                outcome, read_problem=read_problem or error.message, applied=self._state.applied
            )
        self._tell_resolver(ours)
        if system != self._state.applied or self._state.set_problem or lost:
            try:
                way.apply(system)
            except MeshdError as error:
                return msgspec.structs.replace(outcome, set_problem=str(error))
            log.info("dns_applied", extra=kv(way=outcome.way, nameservers=" ".join(map(str, system.nameservers))))
        self._restored = lost
        return msgspec.structs.replace(outcome, applied=system)

    def _right_way(self) -> HostDNS:
        """The way in charge: looked for at the beginning, and when another program took over the file. One that is
        silent, because it is started anew, is still the one in charge."""
        if self._way is None or self._way.lost():
            facts = self._look()
            if self._way is not None and facts.resolv_conf == self._chosen_by:
                return self._way
            choice, self._chosen_by = choose_way(facts), facts.resolv_conf
            if self._way is None or choice.way is not self._choice.way:
                if self._way is not None:
                    self._way.close()
                self._way, self._state = self._open_way(choice.way), Outcome()
                log.info("dns_way", extra=kv(way=choice.way.value, problem=choice.problem))
            self._choice = choice
        return self._way

    def _tell_resolver(self, config: ResolverConfig) -> None:
        self._loop.call_soon_threadsafe(self._resolver, config)

    # -- in the loop ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._closed:
            return
        if self._thread is not None:
            self._again = True
            return
        self._disarm()
        self._again = self._restored = False
        self._thread = start_thread("meshd-dns", self._apply, self._wish)
        if self._thread is None:
            self._timer = self._loop.call_later(POLL_S, self._work)

    def _applied(self, outcome: Outcome) -> None:
        self._thread = None
        if self._closed:
            return
        if self._restored:
            log.warning("dns_restored", extra=kv(way=outcome.way, reason="another program had changed it"))
            # Two programs that undo each other's work should not keep the machine busy.
            self._settle = min(self._settle * 2, MAX_SETTLE_S)
            if self._quiet is not None:
                self._quiet.cancel()
            self._quiet = self._loop.call_later(QUIET_S, self._calmed)
        overwritten = self._quiet is not None and outcome.way == Way.DIRECT.value
        self._state = msgspec.structs.replace(outcome, overwritten=overwritten)
        self._done(self._state)
        if self._again:
            self._work()
            return
        self._listen()

    def _calmed(self) -> None:
        self._quiet, self._settle = None, SETTLE_S
        if self._state.overwritten:
            self._state = msgspec.structs.replace(self._state, overwritten=False)
            self._done(self._state)

    def _listen(self) -> None:
        watched, polls = self._way.watched if self._way is not None else (), False
        try:
            if self._watch is None and watched:
                self._watch = FileWatch(self._loop, self._changed)
            if self._watch is not None:
                self._watch.watch(watched)
        except OSError as error:
            log.info("file_watch_unavailable", extra=kv(reason=error.strerror))
            polls = True
        if self._timer is None and (polls or self._state.set_problem or self._state.read_problem):
            self._timer = self._loop.call_later(POLL_S, self._work)

    def _changed(self) -> None:
        """Files are written in several steps: look when it is over."""
        if self._timer is None or self._timer.when() > self._loop.time() + self._settle:
            self._disarm()
            self._timer = self._loop.call_later(self._settle, self._work)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
