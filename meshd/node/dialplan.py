"""Addresses of the coordination server that it told us itself, for when its name cannot be resolved."""

from __future__ import annotations

from meshd.base.addr import IPAddress, parse_ip
from meshd.io.dial import MAX_ATTEMPTS, PlannedAddress
from meshd.wire.control import ControlDialPlan

LONGEST_DELAY_S = 5.0
LONGEST_TRY_S, USUAL_TRY_S = 10.0, 5.0


class DialPlan:
    """The plan of one server (LK-13); kept while the process runs, and only for that server."""

    def __init__(self) -> None:
        self._server = ""
        self._planned: tuple[PlannedAddress, ...] = ()

    def learn(self, server: str, plan: ControlDialPlan) -> None:
        """What the server at this URL said. A plan without addresses takes the last one back."""
        ranked = sorted(plan.candidates or (), key=lambda candidate: -candidate.priority)
        self._server = server
        self._planned = tuple(
            PlannedAddress(
                address,
                min(max(candidate.dial_start_delay_sec, 0.0), LONGEST_DELAY_S),
                min(candidate.dial_timeout_sec, LONGEST_TRY_S) if candidate.dial_timeout_sec > 0 else USUAL_TRY_S,
            )
            for candidate in ranked
            if not candidate.ace_host and (address := _usable(candidate.ip)) is not None
        )[:MAX_ATTEMPTS]

    def addresses(self, server: str) -> tuple[PlannedAddress, ...]:
        """Where to try the server at this URL before its name, best first."""
        return self._planned if server == self._server else ()

    def forget(self) -> None:
        """Another login: what the last server said is of no interest any more."""
        self._server, self._planned = "", ()


def _usable(text: str) -> IPAddress | None:
    try:
        return parse_ip(text)
    except ValueError:  # none, one with a zone, or what only looks like one
        return None
