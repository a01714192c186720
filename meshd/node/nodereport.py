"""What the coordination server is told of this node and its host."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshd.base.addr import AddrPort
from meshd.core.prefs import Prefs
from meshd.node.controlport import Control
from meshd.node.hostinfo import with_extras
from meshd.wire.control import Hostinfo, NetInfo


class NodeReport:
    """Passes every change on to the control client of the moment, and all that is known to the one that follows it."""

    def __init__(self, describe_host: Callable[[Prefs], Hostinfo]) -> None:
        self._describe_host = describe_host
        self._control: Control | None = None
        self._endpoints: tuple[tuple[AddrPort, int], ...] = ()
        self._net_info: NetInfo | None = None
        self._push_token = ""
        self._egg = False

    def hostinfo(self, prefs: Prefs) -> Hostinfo:
        """The host as it is to be described under these preferences."""
        return with_extras(self._describe_host(prefs), push_token=self._push_token, egg=self._egg)

    def attach(self, control: Control | None) -> None:
        """Report to this client from now on; None: to nobody. It has the Hostinfo already, it was made with it."""
        self._control = control
        if control is not None and self._endpoints:
            control.update_endpoints(self._endpoints)
        if control is not None and self._net_info is not None:
            control.update_netinfo(self._net_info)

    def set_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None:
        """Where peers may find us."""
        self._endpoints = tuple(endpoints)
        if self._control is not None:
            self._control.update_endpoints(self._endpoints)

    def set_net_info(self, net_info: NetInfo) -> None:
        """What the network check found."""
        self._net_info = net_info
        if self._control is not None:
            self._control.update_netinfo(net_info)

    def set_push_token(self, token: str, prefs: Prefs) -> None:
        """Where a graphical client takes push messages (PP-12)."""
        if token != self._push_token:
            self._push_token = token
            self.host_changed(prefs)

    def hatch(self, prefs: Prefs) -> None:
        """Somebody found the egg among the preferences."""
        if not self._egg:
            self._egg = True
            self.host_changed(prefs)

    def host_changed(self, prefs: Prefs) -> None:
        """What there is to tell of the host is different."""
        if self._control is not None:
            self._control.update_hostinfo(self.hostinfo(prefs))
