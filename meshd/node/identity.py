"""The identity of a login in its two forms, as the control client holds it and as it is stored, and what else is
stored of a login."""

from __future__ import annotations

import msgspec

from meshd.base.keys import LockPrivate, NodePrivate
from meshd.core.controlstatus import ControlStatus
from meshd.core.controlstatus import Persist as ControlPersist
from meshd.core.prefs import Persist, Prefs, UserProfile
from meshd.wire.control import UserProfile as WireUser


def to_control(persist: Persist) -> ControlPersist:
    """The identity as the control client holds it."""
    node = NodePrivate.parse(persist.private_node_key)
    old = NodePrivate.parse(persist.old_private_node_key)
    lock = LockPrivate.parse(persist.network_lock_key)
    profile = persist.user_profile
    return ControlPersist(
        node_private=None if node.is_zero else node,
        old_node_private=None if old.is_zero else old,
        lock_private=None if lock.is_zero else lock,
        user_profile=WireUser(
            id=profile.id,
            login_name=profile.login_name,
            display_name=profile.display_name,
            profile_pic_url=profile.profile_pic_url,
        )
        if profile.id
        else None,
        stable_id=persist.node_id,
    )


def from_control(persist: ControlPersist, former: Persist) -> Persist:
    """The identity as it is stored, with what only other programs use as in ``former``."""
    user = persist.user_profile
    return msgspec.structs.replace(
        former,
        private_node_key=(persist.node_private or NodePrivate.zero()).text(),
        old_private_node_key=(persist.old_node_private or NodePrivate.zero()).text(),
        network_lock_key=(persist.lock_private or LockPrivate.zero()).text(),
        user_profile=UserProfile(user.id, user.login_name, user.display_name, user.profile_pic_url)
        if user
        else UserProfile(),
        node_id=persist.stable_id,
    )


def after_report(prefs: Prefs, status: ControlStatus, *, let_in: bool) -> Prefs:
    """LK-05: the preferences with what a report of the control client settles. ``let_in``: somebody visited the page
    that lets this node in, and wants it connected. Who disconnected it while it logged in by itself does not."""
    if status.persist is not None:
        prefs = msgspec.structs.replace(prefs, config=from_control(status.persist, prefs.persist()))
    if status.login_finished:
        wanted = prefs.want_running or prefs.logged_out or let_in
        prefs = msgspec.structs.replace(
            prefs, want_running=wanted, logged_out=False, control_url=prefs.effective_control_url()
        )
    if status.netmap is not None and prefs.auto_update.apply is None and status.netmap.wants_no_updates:
        prefs = msgspec.structs.replace(prefs, auto_update=msgspec.structs.replace(prefs.auto_update, apply=False))
    return prefs
