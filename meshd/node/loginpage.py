"""The web page on which a person lets this node into the network."""

from __future__ import annotations

from collections.abc import Callable

from meshd.base.clock import Clock
from meshd.base.log import get_logger, kv
from meshd.core.loginurl import may_be_shown

log = get_logger(__name__)

PAGE_LIFE_S = 7 * 86400 - 3600  # the server forgets a login that nobody finished after a week


class LoginPage:
    """``url`` is the page that waits for somebody, ``""`` when none does."""

    def __init__(self, clock: Clock, show: Callable[[str], None]) -> None:
        """``show`` has the watching programs open a page."""
        self._clock = clock
        self._show = show
        self._asked_at = 0.0
        self.url = ""

    def browse(self, url: str, control_url: str) -> bool:
        """Show a page of the server at ``control_url``, unless no browser should open it (LK-04)."""
        if not may_be_shown(url, control_url):
            log.warning("login_url_refused", extra=kv(reason="not a page that this coordination server may show"))
            return False
        self._show(url)
        return True

    def ask(self, url: str, control_url: str) -> None:
        """LK-03: somebody has to approve this node on a web page."""
        if self.browse(url, control_url):
            self.url, self._asked_at = url, self._clock.monotonic()

    def show_again(self) -> bool:
        """Show the page that still waits; False when the server has to be asked for one (LK-02)."""
        if not self.url or self._clock.monotonic() - self._asked_at >= PAGE_LIFE_S:
            return False
        self._show(self.url)
        return True

    def forget(self) -> None:
        """Nobody is waited for any more."""
        self.url, self._asked_at = "", 0.0
