"""What a node writes into its log when its user reports a bug."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator

from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.tokenbucket import TokenBucket
from meshd.node.backend import Backend
from meshd.node.hostinfo import backend_log_id
from meshd.node.inspection import HostChecks
from meshd.node.magicsock import MagicSock

log = get_logger(__name__)

NO_LOGS = "BUG-NO-LOGS-NO-SUPPORT-this-node-has-had-its-logging-disabled"
"""The marker of a node whose user wants nothing to be looked up by anybody."""

SECONDS_BETWEEN, BURST = 5.0, 10.0
"""How often users may have a report written."""

MAX_NOTE_CHARACTERS = 1000
_SHOWN_VARIABLES = ("TS_", "MESHD_")
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "ARGS")  # a container's flags may hold an auth key


class BugReport:
    """``mark`` writes a marker and what the node knows of its state; ``diagnose`` looks at the machine too."""

    def __init__(self, backend: Backend, magicsock: MagicSock, clock: Clock, host: HostChecks) -> None:
        self._backend = backend
        self._magicsock = magicsock
        self._clock = clock
        self._host = host
        self._bucket = TokenBucket(1 / SECONDS_BETWEEN, BURST, clock.monotonic())

    def mark(self, note: str) -> str:
        """The marker by which this moment is found in the log, on a line of its own with the user's note.

        Raises:
            MeshdError: "unavailable" when there were too many a moment ago; the log is for others too.
        """
        if not self._bucket.take(1.0, self._clock.monotonic()):
            raise MeshdError("too many bug reports; try again in a few seconds", code="unavailable")
        marker = self._marker()
        log.info("bug_report", extra=kv(marker=marker, note=note[:MAX_NOTE_CHARACTERS]))
        backend = self._backend
        netmap = backend.netmap
        texts = backend.health.texts()
        log.info("bug_report_node", extra=kv(version=backend.version, state=backend.state.label, system=_system()))
        log.info("bug_report_health", extra=kv(texts="; ".join(texts) or "ok"))
        if netmap is None:
            log.info("bug_report_netmap", extra=kv(peers="no netmap"))
        else:
            own = netmap.self_node
            facts = kv(node_id=own.id, key=netmap.node_key.text(), peers=len(netmap.peers), expiry=netmap.expiry)
            log.info("bug_report_netmap", extra=facts)
        for name in sorted(os.environ):
            if name.startswith(_SHOWN_VARIABLES) and not any(word in name for word in _SECRET):
                log.info("bug_report_environment", extra=kv(name=name, value=os.environ[name][:200]))
        return marker

    def diagnose(self) -> None:
        """Look at the parts of the machine that matter to a node, and log each finding."""
        for name, look in self._checks():
            try:
                found = look()
            except OSError as error:
                found = f"cannot be checked: {error.strerror or error}"
            log.info("diagnosis", extra=kv(check=name, found=found or "ok"))

    def _checks(self) -> Iterator[tuple[str, Callable[[], object]]]:
        routes = list(self._backend.prefs.advertise_routes or ())
        yield "permissions", lambda: "" if os.geteuid() == 0 else f"runs as user {os.geteuid()}"
        yield "ip-forwarding", lambda: self._host.forwarding_problem(routes)
        yield "udp-gro-forwarding", self._host.udp_gro_problem
        yield "socket-mark", lambda: "" if self._host.marks_sockets() else "own packets carry no mark"
        yield "home-relay", lambda: self._magicsock.relay_code(self._magicsock.home_relay) or "none"
        yield "relays-connected", lambda: self._magicsock.live_relays
        yield "endpoints", lambda: " ".join(str(e.addr) for e in self._magicsock.endpoints) or "none"

    def _marker(self) -> str:
        if os.environ.get("TS_NO_LOGS_NO_SUPPORT", "").lower() in ("1", "t", "true"):
            return NO_LOGS
        stamp = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(self._clock.wall()))
        return f"BUG-{backend_log_id()}-{stamp}-{secrets.token_hex(8)}"


def _system() -> str:
    name = os.uname()
    return f"{name.sysname} {name.release} {name.machine}"
