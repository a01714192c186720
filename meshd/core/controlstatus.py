"""What the control client reports, and what it needs to be given: plain values.

`Persist` is what must survive a restart and belongs to the profile; `ControlStatus` is one report.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

import msgspec

from meshd.base.discreet import Discreet
from meshd.base.errors import MeshdError
from meshd.base.keys import LockPrivate, NodePrivate
from meshd.wire.control import UserProfile

if TYPE_CHECKING:
    from meshd.core.mapchange import MapChange
    from meshd.core.netmap import Netmap


class LoginFlags(IntFlag):
    """How to log in. INTERACTIVE makes a new node key and asks for a person; EPHEMERAL nodes vanish."""

    DEFAULT = 0
    INTERACTIVE = 1
    EPHEMERAL = 2


class Persist(msgspec.Struct, frozen=True):
    """Identity of the node at one coordination server. None = not made yet."""

    node_private: NodePrivate | None = None
    old_node_private: NodePrivate | None = None
    """The key before the last rotation; sent so that the server can tell that we are the same node."""
    lock_private: LockPrivate | None = None
    user_profile: UserProfile | None = None
    stable_id: str = ""


class ControlStatus(Discreet, frozen=True):
    """One report. ``error`` is for the user; the client goes on by itself unless ``logged_in`` stays false.

    ``login_finished`` is true in exactly the one report that ends a login. ``auth_url`` is a page where a
    person must approve us. ``persist`` is set when it changed and must be stored before the callback
    returns. ``change`` comes with ``netmap`` and says what is different since the report before.
    ``can_continue`` false: nothing goes on until someone calls login(). ``recalled``: the netmap is one that an
    earlier process had, the server has not sent any yet. ``key_expired``: our own key has passed its expiry, by the
    server's clock.
    """

    hidden = ("persist", "netmap")

    logged_in: bool = False
    login_finished: bool = False
    logged_out: bool = False
    in_map_poll: bool = False
    can_continue: bool = True
    auth_url: str = ""
    error: MeshdError | None = None
    persist: Persist | None = None
    netmap: Netmap | None = None
    change: MapChange | None = None
    recalled: bool = False
    key_expired: bool = False

    def facts(self) -> ControlStatus:
        """What stays true until the next report, without what is news in this one: that may be a whole network."""
        return msgspec.structs.replace(self, error=None, persist=None, netmap=None, change=None)

    def is_of_peers_only(self, before: ControlStatus) -> bool:
        """Whether it tells of peers, and of nothing else since the report ``before``."""
        return (
            self.change is not None
            and self.change.peers_changed
            and not self.change.beyond_peers
            and self.netmap is not None
            and self.persist is None
            and self.error is None
            and self.in_map_poll == before.in_map_poll
            and self.logged_in == before.logged_in
            and self.can_continue == before.can_continue
            and self.auth_url == before.auth_url
            and self.recalled == before.recalled
            and self.key_expired == before.key_expired
            and not self.login_finished
        )
