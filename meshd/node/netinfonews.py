"""What the coordination server hears of our network, when that is different from what it heard last."""

from __future__ import annotations

from collections.abc import Callable

from meshd.core.netreport import Report
from meshd.core.relayadapter import net_info
from meshd.wire.control import NetInfo


class NetInfoNews:
    """Passes on everything but latencies, which are never the same."""

    def __init__(self, told: Callable[[NetInfo], None]) -> None:
        self._tell = told
        self._last: tuple[object, ...] | None = None
        self._firewall_mode = ""

    def tell(self, report: Report, home: int) -> None:
        """The newest report, and the region of our home relay."""
        material = (*report.material(), home, self._firewall_mode)
        if material != self._last:
            self._last = material
            self._tell(net_info(report, home=home, firewall_mode=self._firewall_mode))

    def set_firewall_mode(self, mode: str) -> None:
        """By which means the host's packet filter is set; told with the next report."""
        self._firewall_mode = mode

    def forget(self) -> None:
        """It is another server that hears us from now on, or another node that speaks."""
        self._last = None
