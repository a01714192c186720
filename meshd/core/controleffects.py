"""What a control session asks its shell to do, and the facts about this node that its requests carry."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from meshd.base.keys import DiscoPublic
from meshd.core.controlstatus import ControlStatus
from meshd.wire.control import Hostinfo, MapRequest, NetInfo, RegisterRequest


@dataclass(frozen=True, slots=True)
class NodeFacts:
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


@dataclass(frozen=True, slots=True)
class SendRegister:
    """POST /machine/register; answer with register_answered or register_failed."""

    number: int
    request: RegisterRequest = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenMap:
    """POST /machine/map as a stream; answer with map_message for each message, then map_failed."""

    number: int
    request: MapRequest = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendUpdate:
    """POST /machine/map as a lite update; answer with update_done or update_failed."""

    number: int
    request: MapRequest = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    """The request of this number is of no interest any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the owner of the control client."""

    status: ControlStatus


@dataclass(frozen=True, slots=True)
class HoldMap:
    """Read nothing from the map stream of this number for so many seconds."""

    number: int
    seconds: float


Effect = HoldMap | SendRegister | OpenMap | SendUpdate | Cancel | Report
