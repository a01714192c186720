"""Smaller parts of a map response: instructions to the client and notes to its user."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import Int64, IPText, always


class TKAInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """State of tailnet lock as the server knows it; `head` is the base32 hash of the newest update."""

    head: str = ""
    disabled: bool = False


class Debug(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Imperatives. `exit` 0 is an exit code, None is "stay"."""

    sleep_seconds: float = 0.0
    disable_log_tail: bool = False
    exit: Int64 | None = None


class ControlIPCandidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """One address to reach the server at; seconds, and a higher priority wins."""

    ip: IPText = ""
    ace_host: str = ""
    dial_start_delay_sec: float = 0.0
    dial_timeout_sec: float = 0.0
    priority: Int64 = 0


class ControlDialPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """How to reach the server without DNS; no candidates: by DNS."""

    candidates: tuple[ControlIPCandidate, ...] | None = always(None)


class ClientVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Information about newer releases."""

    running_latest: bool = False
    latest_version: str = ""
    urgent_security_update: bool = False
    notify: bool = False
    notify_url: str = ""
    notify_text: str = ""


class DisplayMessageAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A link to offer with a message."""

    url: str = always("")
    label: str = always("")


class DisplayMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A health note from the server. `severity` is high, medium or low."""

    title: str = always("")
    text: str = always("")
    severity: str = always("")
    impacts_connectivity: bool = False
    primary_action: DisplayMessageAction | None = None
