"""Waiting for a node to come up, and telling the user what it waits for."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

from meshd.base.standardstreams import writes_unicode
from meshd.cli.client import JSON, LocalClient, Watcher
from meshd.cli.errors import CliError
from meshd.cli.output import err, out_json, printable, printable_lines
from meshd.cli.prefsflags import is_login_server_synonym
from meshd.cli.progress import PATIENCE_S, at_terminal
from meshd.cli.qr import draw, png
from meshd.cli.state import STATES

_CONTROL_WARNING = "control"
"""Health code of everything between the node and its coordination server."""

ANSWER_S = 2.0
"""A daemon that takes longer for an answer hangs, where the user has set a limit."""


class UpWait:
    """Follows the notify bus until the node runs.

    Args:
        before: the status before anything was done; its login URL and node key are old ones.
        has_auth_key: a login URL is of no interest then.
        new_key_wanted: done only when the node key has changed too.
        qr_format: draw login URLs so, "" for not at all.
    """

    def __init__(
        self,
        client: LocalClient,
        before: JSON,
        prefs: JSON,
        *,
        has_auth_key: bool,
        new_key_wanted: bool,
        as_json: bool,
        qr_format: str = "",
    ) -> None:
        self._client = client
        self._prefs = prefs
        self._old_url = before.get("AuthURL") or ""
        self._old_key = (before.get("Self") or {}).get("PublicKey")
        self._has_auth_key = has_auth_key
        self._new_key_wanted = new_key_wanted
        self._as_json = as_json
        self._qr_format = qr_format
        self._state = str(before.get("BackendState"))
        self._last_url = ""
        self._said_something = False
        self._told_to_wait = False
        self._last_obstacle = ""

    def run(self, watcher: Watcher, timeout: float) -> None:
        """Wait at most `timeout` seconds, 0 for ever.

        Raises:
            CliError: time over, the backend gave up, the daemon went away. TimeoutError: it hangs.
        """
        deadline = time.monotonic() + timeout if timeout > 0 else None
        # What happened before we began to listen is in the status, what happens later on the bus.
        status = self._client.status(peers=False)
        news: JSON | None = {"State": status.get("BackendState"), "BrowseToURL": status.get("AuthURL") or None}
        while True:
            if news is None:
                raise CliError('lost the connection to meshd while waiting for it; see "mesh status"')
            if self._take(news):
                return
            news = self._next(watcher, deadline)

    def _next(self, watcher: Watcher, deadline: float | None) -> JSON | None:
        """What happens next; people at a terminal are told when that takes more than a second."""
        left = None if deadline is None else deadline - time.monotonic()
        if not self._told_to_wait and at_terminal() and not self._as_json and (left is None or left > PATIENCE_S):
            try:
                return watcher.next(PATIENCE_S)
            except TimeoutError:
                self._told_to_wait = True
                if not self._said_something and not self._last_obstacle:
                    err("# Waiting for the coordination server ...\n")
            left = None if deadline is None else deadline - time.monotonic()
        try:
            return watcher.next(left)
        except TimeoutError:
            self._explain_timeout()

    def _take(self, news: JSON) -> bool:
        """Digest one notify; True when the node is up."""
        if news.get("ErrMessage"):
            if self._as_json:
                out_json({"BackendState": self._state, "Error": news["ErrMessage"]})
            raise CliError(f"backend error: {printable_lines(news['ErrMessage'])}")
        state = news.get("State")
        if state is not None:
            self._state = STATES.get(state, str(state)) if isinstance(state, int) else str(state)
            if self._state == "NeedsMachineAuth":
                self._ask_for_approval()
        if self._state == "Running" and self._has_its_key():
            self._say_done()
            return True
        if news.get("BrowseToURL"):
            self._show_url(str(news["BrowseToURL"]))
        self._tell_obstacle(news)
        return False

    def _tell_obstacle(self, news: JSON) -> None:
        """Say once why it takes so long: the server may be away for a moment, or the URL may be wrong."""
        warnings = (news.get("Health") or {}).get("Warnings") or {}
        text = str((warnings.get(_CONTROL_WARNING) or {}).get("Text") or "")
        if text and text != self._last_obstacle and not self._as_json:
            self._last_obstacle = text
            err(f"# Still trying: {printable_lines(text, '#     ')}\n")

    def _has_its_key(self) -> bool:
        if self._new_key_wanted:
            own = self._client.status(peers=False).get("Self") or {}
            self._new_key_wanted = own.get("PublicKey") == self._old_key
        return not self._new_key_wanted

    def _say_done(self) -> None:
        if self._as_json:
            out_json({"BackendState": "Running"}, 2)
        elif self._said_something:
            err("Success.\n")

    def _show_url(self, url: str) -> None:
        stale = self._new_key_wanted and url == self._old_url
        if self._has_auth_key or stale or url == self._last_url:
            return
        self._last_url = url
        self._said_something = True
        if self._as_json:
            picture = {"QR": png(url)} if self._qr_format else {}
            # A daemon that has just begun anew tells the page before the state.
            state = "NeedsLogin" if self._state == "NoState" else self._state
            out_json({"AuthURL": url, **picture, "BackendState": state})
            return
        err(f"\nTo authenticate, visit:\n\n\t{printable(url)}\n\n")
        if self._qr_format:
            err(draw(url, self._qr_format, unicode=writes_unicode(sys.stderr)) + "\n")

    def _ask_for_approval(self) -> None:
        url = admin_url(self._prefs)
        if url == self._last_url:
            return
        self._last_url = url
        self._said_something = True
        if self._as_json:
            out_json({"BackendState": "NeedsMachineAuth"}, 2)
        else:
            err(f"\nTo approve your machine, visit (as admin):\n\n\t{printable(url)}\n\n")

    def _explain_timeout(self) -> NoReturn:
        self._client.give(ANSWER_S)
        try:
            health = self._client.status(peers=False).get("Health") or []
        except TimeoutError:
            health = []
        reasons = "".join(f"\n#     - {printable_lines(text, '#       ')}" for text in health)
        raise CliError(
            'timeout waiting for meshd to enter a Running state; check health with "mesh status"'
            + (f"\n# Health check:{reasons}" if reasons else "")
        )


def admin_url(prefs: JSON) -> str:
    """Where an admin of the network approves machines."""
    base = str(prefs.get("ControlURL") or "")
    if not base or is_login_server_synonym(base):
        base = "https://login.tailscale.com"
    return base.rstrip("/") + "/admin"
