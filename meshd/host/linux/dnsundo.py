"""Gives a host its resolvers back after a daemon that is gone."""

from __future__ import annotations

import socket
from pathlib import Path

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.dnsway import Way
from meshd.host.linux.dnsdirect import DirectDNS, look
from meshd.host.linux.dnsfacts import foreign_problem, open_way
from meshd.host.linux.journal import Journal
from meshd.host.resolvconf import RESOLV_CONF
from meshd.wire.resolvconf import is_ours

log = get_logger(__name__)


def undo_dns(journal: Journal, path: Path | None = None) -> None:
    """What the journal says was done. Raises MeshdError; the journal is then as before, for another try."""
    entry = journal.dns
    if entry is None:
        return
    if entry.way == Way.DIRECT.value:
        DirectDNS(journal, path or Path(entry.path)).close()
    else:
        try:
            way = Way(entry.way)
            index = socket.if_nametoindex(entry.interface) if way in (Way.RESOLVED, Way.NETWORK_MANAGER) else 0
        except (ValueError, OSError):  # of another version, or gone with its interface and all that was said of it
            journal.record_dns(None)
            return
        open_way(way, journal, entry.interface, index).close()
    log.info("dns_undone", extra=kv(way=entry.way))


def undo_unknown(journal: Journal, path: Path = Path(RESOLV_CONF)) -> None:
    """Put back the original that a file of ours carries, when no journal knows of it: the state was in memory, or in a
    container that is gone. Only for who knows that no other meshd runs here. Raises MeshdError."""
    if journal.dns is None and not foreign_problem(str(path)) and is_ours(look(path).data):
        DirectDNS(journal, path).close()
        log.info("dns_undone", extra=kv(way=Way.DIRECT.value, journal="none"))


def undo_all(journal: Journal, *, unknown: bool) -> None:
    """Both, with what cannot be undone in the log: it must not keep a node from starting."""
    try:
        undo_dns(journal)
        if unknown:
            undo_unknown(journal)
    except (MeshdError, OSError) as error:
        log.error("dns_not_restored", extra=kv(reason=error))
