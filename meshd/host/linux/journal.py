"""What meshd did to the host, so that it can be undone by a process that knows nothing of it.

The journal is written before a change is made and emptied after it was undone: after a SIGKILL
``meshd --cleanup`` reads it and takes back what is still there. Router and packet filter write to it from
threads of their own.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from meshd.base.log import get_logger, kv
from meshd.io.files import write_atomic
from meshd.wire.netlink import Rule

log = get_logger(__name__)


class _RuleEntry(msgspec.Struct, forbid_unknown_fields=True):
    family: int
    priority: int
    action: int
    table: int = 0
    mark: int = 0
    mask: int = 0


class FirewallEntry(msgspec.Struct, frozen=True):
    """Packet filter rules: the program that made them, and the interface after which they are named."""

    backend: str
    interface: str


class DnsEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the host's resolver was set: the way, and for a file what stood in its place (``kind`` as in
    `meshd.wire.resolvconf.Original`)."""

    way: str
    interface: str = ""
    path: str = ""
    kind: str = ""
    data: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: bytes = b""


class Record(msgspec.Struct, omit_defaults=True):
    """The journal's content: our policy rules, our routing table, the interface they lead to, our packet filter
    rules by every means that was used, the values that kernel settings had before (file to content), and how the
    host's resolver was set."""

    rules: list[_RuleEntry] = []
    table: int = 0
    interface: str = ""
    firewall: list[FirewallEntry] = []
    settings: dict[str, str] = {}
    dns: DnsEntry | None = None


class Journal:
    """One small file; ``path`` None keeps it in memory only (nothing to survive)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._record = self._load()

    def _load(self) -> Record:
        if self._path is None:
            return Record()
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record()
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("journal_unreadable", extra=kv(path=self._path, reason=error))
            return Record()

    @property
    def rules(self) -> list[Rule]:
        return [Rule(e.family, e.priority, e.action, e.table, e.mark, e.mask) for e in self._record.rules]

    @property
    def table(self) -> int:
        return self._record.table

    @property
    def interface(self) -> str:
        return self._record.interface

    @property
    def firewall(self) -> list[FirewallEntry]:
        return list(self._record.firewall)

    @property
    def settings(self) -> dict[str, str]:
        return dict(self._record.settings)

    def record(self, rules: list[Rule], table: int, interface: str) -> None:
        """Note what is about to be done."""
        self._write(rules=[_RuleEntry(*rule) for rule in rules], table=table, interface=interface)

    def record_firewall(self, entries: list[FirewallEntry]) -> None:
        """Note by which means there are, or are about to be, packet filter rules of ours."""
        if entries != self._record.firewall:
            self._write(firewall=entries)

    def record_settings(self, settings: dict[str, str]) -> None:
        """Note what kernel settings were before they are changed."""
        if settings != self._record.settings:
            self._write(settings=settings)

    @property
    def dns(self) -> DnsEntry | None:
        return self._record.dns

    def record_dns(self, entry: DnsEntry | None) -> None:
        """Note how the host's resolver is about to be set, or that it was put back."""
        if entry != self._record.dns:
            self._write(dns=entry)

    def clear(self) -> None:
        """Rules and routes were undone."""
        self._write(rules=[], table=0, interface="")

    def _write(self, **changes: object) -> None:
        with self._lock:
            self._record = msgspec.structs.replace(self._record, **changes)
            if self._path is None:
                return
            try:
                if self._record == Record():
                    self._path.unlink(missing_ok=True)
                else:
                    write_atomic(self._path, msgspec.json.encode(self._record))
            except OSError as error:
                # A full disk is no reason to stop: only a SIGKILL would leave something that nobody remembers.
                log.warning("journal_not_written", extra=kv(path=self._path, reason=error.strerror))
