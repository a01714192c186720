"""Carries out packet filter rules beside the event loop, and puts them back when somebody removes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from meshd.base.addr import IPPrefix
from meshd.base.log import get_logger, kv
from meshd.core.firewall import OFF, FirewallConfig
from meshd.host.linux.netfilter import LEGACY, Netfilter, Outcome
from meshd.host.linux.rulesetmonitor import RulesetMonitor
from meshd.io.threads import start_thread

log = get_logger(__name__)

SETTLE_S, MAX_SETTLE_S = 1.0, 60.0
POLL_S = 60.0  # where the kernel does not tell of changes, and while something is wrong


class FirewallKeeper:
    """``want`` says what there should be; ``done`` is called in the loop with how it went, each time it was tried.

    Programs that set rules take some milliseconds, or seconds when another one holds their lock, so they run in
    a thread, one at a time. ``close`` waits for it and takes everything back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        netfilter: Netfilter,
        ports: Callable[[], list[int]],
        attached: Callable[[], list[IPPrefix]],
        done: Callable[[Outcome], None],
    ) -> None:
        self._loop = loop
        self._netfilter = netfilter
        self._ports = ports
        self._attached = attached
        self._done = done
        self._wanted = FirewallConfig()
        self._thread: threading.Thread | None = None
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._settle = SETTLE_S
        self._restored_at = -MAX_SETTLE_S
        self._closed = False
        try:
            self._monitor: RulesetMonitor | None = RulesetMonitor(loop, self._changed)
        except OSError as error:
            log.info("netfilter_monitor_unavailable", extra=kv(reason=error))
            self._monitor = None

    def want(self, config: FirewallConfig) -> None:
        """Bring the host there, and keep it there."""
        if config != self._wanted:
            self._wanted = config
            self._work()

    def look(self) -> None:
        """Something about the host changed: networks, ports, interfaces."""
        if self._wanted.mode != OFF:
            self._work()

    def close(self) -> None:
        self._closed = True
        self._disarm()
        if self._monitor is not None:
            self._monitor.close()
        try:
            if self._thread is not None:
                self._thread.join()
        finally:
            self._netfilter.close()

    def _work(self) -> None:
        if self._closed:
            return
        if self._thread is not None:
            self._again = True
            return
        self._disarm()
        self._again = False
        if self._monitor is not None:
            self._monitor.forget()
        self._thread = start_thread("meshd-firewall", self._apply, self._wanted, self._ports(), self._attached())
        if self._thread is None:
            self._timer = self._loop.call_later(POLL_S, self._work)

    def _apply(self, config: FirewallConfig, ports: list[int], attached: list[IPPrefix]) -> None:
        try:
            outcome = self._netfilter.apply(config, ports, attached)
        except Exception as error:  # a bug: it must not end our care for the rules
            log.error("internal_error", exc_info=error, extra=kv(what=type(error).__name__))
            outcome = Outcome(f"packet filter rules could not be set: internal error ({error})")
        self._loop.call_soon_threadsafe(self._applied, outcome)

    def _applied(self, outcome: Outcome) -> None:
        if self._closed:
            return
        self._thread = None
        if self._again:
            self._work()
            return
        if outcome.restored:
            log.warning("firewall_rules_restored", extra=kv(reason="another program had removed them"))
            # Two programs that undo each other's work should not keep the machine busy.
            now = self._loop.time()
            again = now - self._restored_at < 2 * MAX_SETTLE_S
            self._settle = min(self._settle * 2, MAX_SETTLE_S) if again else SETTLE_S
            self._restored_at = now
        self._done(outcome)
        if self._wanted.mode == OFF:
            if self._monitor is not None:
                self._monitor.rest()
            return
        if self._monitor is not None:
            self._monitor.listen()
        if self._monitor is None or self._netfilter.backend == LEGACY or outcome.problem:
            self._timer = self._loop.call_later(POLL_S, self._work)

    def _changed(self) -> None:
        """Rules come and go in bursts: look when it is over."""
        self._disarm()
        self._timer = self._loop.call_later(self._settle, self._work)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
