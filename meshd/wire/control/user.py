"""People and the identities they log in with."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import ZERO_TIME, Int64, TimeText, always


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Owner of nodes. The id is never 0."""

    id: Int64 = always(0)
    display_name: str = always("")
    profile_pic_url: str = ""
    created: TimeText = ZERO_TIME


class Login(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """The identity behind a user, as its provider knows it."""

    id: Int64 = always(0)
    provider: str = always("")
    login_name: str = always("")
    display_name: str = always("")
    profile_pic_url: str = ""


class UserProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """What is shown of the owner of a node."""

    id: Int64 = always(0)
    login_name: str = always("")
    display_name: str = always("")
    profile_pic_url: str = ""
    groups: tuple[str, ...] = ()
