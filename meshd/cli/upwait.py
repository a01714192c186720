"""Waiting for a node to come up, and telling the user what it waits for."""

from __future__ import annotations

import time

from meshd.cli.client import JSON, LocalClient, Watcher
from meshd.cli.errors import CliError
from meshd.cli.output import err, out_json, printable, printable_lines
from meshd.cli.prefsflags import is_login_server_synonym
from meshd.cli.state import STATES

_CONTROL_WARNING = "control"
"""Health code of everything between the node and its coordination server."""


class UpWait:
    """Follows the notify bus until the node runs.

    Args:
        before: the status before anything was done; its login URL and node key are old ones.
        has_auth_key: a login URL is of no interest then.
        new_key_wanted: done only when the node key has changed too.
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
    ) -> None:
        self._client = client
        self._prefs = prefs
        self._old_url = before.get("AuthURL") or ""
        self._old_key = (before.get("Self") or {}).get("PublicKey")
        self._has_auth_key = has_auth_key
        self._new_key_wanted = new_key_wanted
        self._as_json = as_json
        self._state = str(before.get("BackendState"))
        self._last_url = ""
        self._said_something = False
        self._last_obstacle = ""

    def run(self, watcher: Watcher, timeout: float) -> None:
        """Wait at most `timeout` seconds, 0 for ever.

        Raises:
            CliError: time over, the backend gave up, the daemon went away.
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
            try:
                news = watcher.next(None if deadline is None else deadline - time.monotonic())
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
            out_json({"AuthURL": url, "BackendState": self._state})
        else:
            err(f"\nTo authenticate, visit:\n\n\t{printable(url)}\n\n")

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

    def _explain_timeout(self) -> None:
        health = self._client.status(peers=False).get("Health") or []
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
