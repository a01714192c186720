"""Who may reach whom: the interface between a policy and the maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from meshd.coord.records import NodeRecord
from meshd.wire.control import FilterRule, NetPortRange, PortRange, SSHPolicy

ALL_PORTS = PortRange(first=0, last=65535)


class Access(Protocol):
    """The answers of a policy for the network as it is now."""

    everyone: bool
    """Every node sees every other and gets the same rules."""

    def visible(self, node_id: int) -> Collection[int]:
        """Ids of the peers that the node gets in its map: those it may reach or be reached by."""
        ...

    def rules(self, node: NodeRecord) -> Sequence[FilterRule]:
        """What may come in at the node."""
        ...

    def routes(self, node: NodeRecord, carried: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the routes a peer carries that the node may send to, or has to answer through."""
        ...

    def ssh(self, node: NodeRecord) -> SSHPolicy | None:
        """Who may log in at the node by SSH."""
        ...

    def attributes(self, node: NodeRecord) -> Mapping[str, tuple[Any, ...] | None]:
        """What the node is told to do, or may do, besides what all are."""
        ...


class AllowAll:
    """The access of a network without a policy."""

    everyone = True

    def __init__(self) -> None:
        self._rules = (FilterRule(src_ips=("*",), dst_ports=(NetPortRange(ip="*", ports=ALL_PORTS),)),)

    def visible(self, node_id: int) -> Collection[int]:
        return ()

    def rules(self, node: NodeRecord) -> Sequence[FilterRule]:
        return self._rules

    def routes(self, node: NodeRecord, carried: tuple[str, ...]) -> tuple[str, ...]:
        return carried

    def ssh(self, node: NodeRecord) -> SSHPolicy | None:
        return None

    def attributes(self, node: NodeRecord) -> Mapping[str, tuple[Any, ...] | None]:
        return {}
