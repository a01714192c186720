"""Changes of preferences: who may make them, what becomes of them, and when they are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core import exitnode
from meshd.core import prefs as prefs_module
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs
from meshd.core.prefsline import pretty
from meshd.node.authority import Authority
from meshd.node.profiles import Profiles
from meshd.node.store import Store

log = get_logger(__name__)


class Preferences:
    """Those of the current profile. ``carry_out(before, after)`` is called when a change is current."""

    def __init__(
        self,
        store: Store,
        profiles: Profiles,
        authority: Authority,
        netmap: Callable[[], Netmap | None],
        carry_out: Callable[[Prefs, Prefs], None],
    ) -> None:
        self._store = store
        self._profiles = profiles
        self._authority = authority
        self._netmap = netmap
        self._carry_out = carry_out
        self._reconnect: asyncio.TimerHandle | None = None
        self.suggest_exit_node: Callable[[], str] = lambda: ""
        """The stable id of the exit node that is best reached, "" for none."""

    def check(self, prefs: Prefs, before: Prefs) -> None:
        """MeshdError "invalid" with every complaint (PP-05) that does not hold for ``before`` already."""
        self._authority.check_unlocked()
        prefs_module.check(prefs, before)
        name = prefs.profile_name
        if name and name != before.profile_name and self._profiles.name_taken(name):
            raise MeshdError(f'profile name "{name}" already in use', code="invalid")

    def edit(self, masked: Mapping[str, Any], reason: str) -> Prefs:
        """Change, check, store and apply preferences (PP-02, PP-04); returns them without keys."""
        wanted = prefs_module.edit(self._profiles.prefs, masked)
        return self._edit(wanted, exit_node=prefs_module.names_exit_node(masked), reason=reason)

    def check_edit(self, masked: Mapping[str, Any], reason: str) -> None:
        """MeshdError when `edit` would not do it now."""
        wanted = prefs_module.edit(self._profiles.prefs, masked)
        self._check_edit(wanted, exit_node=prefs_module.names_exit_node(masked), reason=reason)

    def use_exit_node(self, enabled: bool) -> Prefs:
        """Switch the exit node off, or the last one on again (PP-07)."""
        before = self._profiles.prefs
        wanted = exitnode.toggle(before, enabled)
        if wanted == before:
            self._authority.check_unlocked()
            return before.redacted()
        return self._edit(wanted, exit_node=True)

    def check_leave(self, reason: str) -> None:
        """MeshdError "invalid" when the user may not log out."""
        before = self._profiles.prefs
        stopped = msgspec.structs.replace(before, want_running=False, logged_out=True)
        self._authority.check_edit(before, stopped, exit_node=False, reason=reason)
        self._authority.check_unlocked()

    def _edit(self, wanted: Prefs, *, exit_node: bool, reason: str = "") -> Prefs:
        before = self._profiles.prefs
        self._check_edit(wanted, exit_node=exit_node, reason=reason)
        if wanted == before:
            return before.redacted()
        overridden = self._authority.overridden
        delay = self._authority.edited(before, wanted, exit_node=exit_node)
        try:
            after = self.change(wanted)
        except MeshdError:
            if self._profiles.prefs is before:  # it could not be stored
                self._authority.overridden = overridden
            raise
        if before.want_running != wanted.want_running:
            self._reconnect_in(delay)
        return after

    def _check_edit(self, wanted: Prefs, *, exit_node: bool, reason: str) -> None:
        before = self._profiles.prefs
        self._authority.check_edit(before, wanted, exit_node=exit_node, reason=reason)
        self.check(wanted, before)

    def change(self, wanted: Prefs) -> Prefs:
        """Store and carry out preferences that may be; nothing happens when they are what they were."""
        return self._change(wanted, self._profiles.set_prefs)

    def _change(self, wanted: Prefs, store: Callable[[Prefs], None]) -> Prefs:
        before, after = self._profiles.prefs, self.settle(wanted)
        if after == before:
            return before.redacted()
        if self._store.problem is not None:
            raise self._store.problem
        store(after)
        idle = set(prefs_module.without_effect(after)) - set(prefs_module.without_effect(before))
        if idle:
            log.warning("prefs_without_effect", extra=kv(prefs=",".join(sorted(idle)), reason="not in this build"))
        log.info("prefs_changed", extra=kv(prefs=pretty(after)))
        self._carry_out(before, after)
        return after.redacted()

    def settle(self, prefs: Prefs) -> Prefs:
        """What becomes of preferences: the policy is held over them (PP-09), the exit node is found (PP-08, PP-17)."""
        prefs = self._resolve_exit_node(self._authority.overlay(prefs))
        if not prefs.auto_exit_node:
            return prefs
        return exitnode.resolve_auto(prefs, self.suggest_exit_node(), self._authority.allowed_exit_nodes())

    def _resolve_exit_node(self, prefs: Prefs) -> Prefs:
        """PP-08: an exit node given by address becomes one by id as soon as the netmap knows it.

        Until then an id that stands beside it does not count.
        """
        netmap = self._netmap()
        address = prefs.exit_ip() if prefs.exit_node_ip and netmap else None
        if address is None or netmap is None:
            return prefs
        node = netmap.peer_by_ip(address)
        if node is None:
            return msgspec.structs.replace(prefs, exit_node_id="") if prefs.exit_node_id else prefs
        return msgspec.structs.replace(prefs, exit_node_id=node.stable_id, exit_node_ip="")

    def network_changed(self) -> None:
        """Another network has another best exit node, where the node is to choose one itself (PP-17)."""
        if self._profiles.prefs.auto_exit_node and self._netmap() is not None:
            self._change(self._profiles.prefs, self._profiles.keep)

    # -- connecting again -----------------------------------------------------------------------------------

    def profile_changed(self) -> None:
        """What the user overrode in the last profile is the policy's again."""
        self._reconnect_in(None)
        self._authority.forget_overrides()

    def close(self) -> None:
        self._reconnect_in(None)

    def _reconnect_in(self, delay_s: float | None) -> None:
        """SM-18: a policy may let a user disconnect, for a while."""
        if self._reconnect is not None:
            self._reconnect.cancel()
            self._reconnect = None
        if delay_s is not None:
            loop = asyncio.get_running_loop()
            self._reconnect = loop.call_later(delay_s, self._reconnect_now)

    def _reconnect_now(self) -> None:
        self._reconnect = None
        log.info("reconnecting", extra=kv(reason="the system policy ends a disconnect after a while"))
        self._authority.forget_overrides()
        try:
            # What the policy has settled holds also where the disk is full.
            self._change(msgspec.structs.replace(self._profiles.prefs, want_running=True), self._profiles.keep)
        except MeshdError as error:
            log.warning("reconnect_failed", extra=kv(reason=error.message))
