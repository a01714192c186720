"""Which relay region is home."""

from __future__ import annotations

from meshd.core.relaymap import RelayMap


class HomeRelay:
    """Chooses at once, then stays: with one region that one, with several the first that answers, later
    what the network check prefers. Each input returns whether ``region`` changed."""

    def __init__(self, seed: int) -> None:
        self.region = 0
        self._seed = seed
        self._candidates: list[int] = []
        self._homeless = False

    def map_changed(self, relays: RelayMap) -> bool:
        """Another relay map. A home that is still in it stays."""
        self._candidates = relays.home_candidates()
        if self.region in self._candidates:
            return False
        return self._set(self._candidates[0] if len(self._candidates) == 1 else 0)

    def answered(self, region: int) -> bool:
        """The first region that answered a check: better than none."""
        return not self.region and region in self._candidates and self._set(region)

    def checked(self, preferred: int, *, control_connected: bool) -> bool:
        """A check ended; ``preferred`` is 0 when nothing could be measured.

        While control is unreachable the home stays, because peers could not learn of a new one. Without any
        measurement the current one stays too, and a process that has none picks one by its seed.
        """
        if preferred in self._candidates and (control_connected or not self.region):
            return self._set(preferred)
        if not self.region and self._candidates:
            return self._set(self._candidates[self._seed % len(self._candidates)])
        return False

    def move(self) -> bool:
        """Another region than the present one, until the next check (for people who look for faults)."""
        others = [region for region in self._candidates if region != self.region]
        return bool(others) and self._set(others[self._seed % len(others)])

    def set_homeless(self, homeless: bool) -> bool:
        """Have no home at all, or one again: the next check finds it."""
        self._homeless = homeless
        return self._set(self.region)

    def _set(self, region: int) -> bool:
        if self._homeless:
            region = 0
        changed = region != self.region
        self.region = region
        return changed
