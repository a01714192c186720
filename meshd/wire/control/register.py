"""`POST /machine/register`."""

from __future__ import annotations

import msgspec

from meshd.wire.control.hostinfo import Hostinfo
from meshd.wire.control.names import wire_name
from meshd.wire.control.user import Login, User
from meshd.wire.control.values import (
    ZERO_LOCK_KEY,
    ZERO_NODE_KEY,
    ZERO_TIME,
    Int64,
    LockKeyText,
    NodeKeyText,
    TimeText,
    always,
)


class RegisterAuth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Proof of being allowed in. The key never shows in `repr`."""

    auth_key: str = ""

    def __repr__(self) -> str:
        return f"RegisterAuth(auth_key={'<redacted>' if self.auth_key else repr('')})"


class RegisterRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Ask for a node key to be bound to this machine; also log out (an `expiry` in the past)."""

    version: Int64 = always(0)
    node_key: NodeKeyText = always(ZERO_NODE_KEY)
    old_node_key: NodeKeyText = always(ZERO_NODE_KEY)
    nl_key: LockKeyText = always(ZERO_LOCK_KEY)
    auth: RegisterAuth | None = None
    expiry: TimeText = always(ZERO_TIME)
    followup: str = always("")
    """The `auth_url` of an earlier answer: wait until it is dealt with."""
    hostinfo: Hostinfo | None = always(None)
    ephemeral: bool = False
    node_key_signature: bytes | None = always(None)
    signature_type: str = ""
    timestamp: TimeText | None = None
    device_cert: bytes | None = None
    signature: bytes | None = None
    tailnet: str = ""


class RegisterResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A non-empty `error` refuses, a non-empty `auth_url` is pending, neither is success."""

    user: User = msgspec.field(default_factory=User)
    login: Login = msgspec.field(default_factory=Login)
    node_key_expired: bool = always(False)
    machine_authorized: bool = always(False)
    auth_url: str = always("")
    node_key_signature: bytes | None = always(None)
    error: str = always("")
