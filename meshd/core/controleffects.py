"""What a control session asks its shell to do, and the facts about this node that its requests carry."""

from __future__ import annotations

import msgspec

from meshd.base.discreet import Discreet
from meshd.base.keys import DiscoPublic
from meshd.core.controlstatus import ControlStatus
from meshd.wire.control import Hostinfo, MapRequest, NetInfo, RegisterRequest


class NodeFacts(msgspec.Struct, frozen=True):
    """Everything about this node that the server stores; each map request carries all of it.

    ``endpoints`` are ("ip:port", type) pairs, None while they are not known.
    """

    hostinfo: Hostinfo
    disco_public: DiscoPublic
    net_info: NetInfo | None = None
    endpoints: tuple[tuple[str, int], ...] | None = None
    lock_head: str = ""
    debug_flags: tuple[str, ...] = ()

    def full_hostinfo(self) -> Hostinfo:
        """Hostinfo with the result of the last network check inside."""
        return msgspec.structs.replace(self.hostinfo, net_info=self.net_info)


class SendRegister(Discreet, frozen=True):
    """POST /machine/register; answer with register_answered or register_failed."""

    hidden = ("request",)

    number: int
    request: RegisterRequest


class OpenMap(Discreet, frozen=True):
    """POST /machine/map as a stream; answer with map_message for each message, then map_failed."""

    hidden = ("request",)

    number: int
    request: MapRequest


class SendUpdate(Discreet, frozen=True):
    """POST /machine/map as a lite update; answer with update_done or update_failed."""

    hidden = ("request",)

    number: int
    request: MapRequest


class Cancel(msgspec.Struct, frozen=True):
    """The request of this number is of no interest any more."""

    number: int


class Report(msgspec.Struct, frozen=True):
    """Tell the owner of the control client."""

    status: ControlStatus


class HoldMap(msgspec.Struct, frozen=True):
    """Read nothing from the map stream of this number for so many seconds."""

    number: int
    seconds: float


class HangUp(msgspec.Struct, frozen=True):
    """The connection is dead, though nobody says so: close it. Whatever needs one opens another."""


Effect = HangUp | HoldMap | SendRegister | OpenMap | SendUpdate | Cancel | Report
