"""Who may log in by SSH. All names are lower camel case here."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import AddrPortText, Int64, TimeText, always


class SSHPrincipal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """A source: a node by stable id or address, a user, or anyone."""

    node: str = ""
    node_ip: str = msgspec.field(name="nodeIP", default="")
    user_login: str = ""
    any: bool = False


class SSHRecorderFailureAction(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False
):
    """What to do when a session cannot be recorded; empty text: go on."""

    reject_session_with_message: str = ""
    terminate_session_with_message: str = ""
    notify_url: str = ""


class SSHAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Verdict over a connection. `session_duration` is in nanoseconds, 0 = no limit."""

    message: str = ""
    reject: bool = False
    accept: bool = False
    session_duration: Int64 = 0
    allow_agent_forwarding: bool = False
    hold_and_delegate: str = ""
    """URL to ask for the verdict."""
    allow_local_port_forwarding: bool = False
    allow_remote_port_forwarding: bool = False
    recorders: tuple[AddrPortText, ...] = ()
    on_recording_failure: SSHRecorderFailureAction | None = None


class SSHRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Applies when a principal and a user name match. None lists are empty lists."""

    rule_expires: TimeText | None = None
    principals: tuple[SSHPrincipal, ...] | None = always(None)
    ssh_users: dict[str, str] | None = always(None)
    """Requested user (or `*`) to local user; `=` the same name, empty: no match."""
    action: SSHAction | None = always(None)
    accept_env: tuple[str, ...] = ()


class SSHPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """The first matching rule decides; no match denies. None is the same as no rules."""

    rules: tuple[SSHRule, ...] | None = always(None)
