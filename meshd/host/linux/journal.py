"""What meshd did to the host, so that it can be undone by a process that knows nothing of it.

The journal is written before a change is made and emptied after it was undone: after a SIGKILL
``meshd --cleanup`` reads it and takes back what is still there.
"""

from __future__ import annotations

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


class Record(msgspec.Struct):
    """The journal's content: our policy rules, our routing table, the interface they lead to."""

    rules: list[_RuleEntry] = []
    table: int = 0
    interface: str = ""


class Journal:
    """One small file; ``path`` None keeps it in memory only (nothing to survive)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._record = self._load()

    def _load(self) -> Record:
        if self._path is None:
            return Record()
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("journal_unreadable", extra=kv(path=self._path, reason=error))
            return Record()

    @property
    def rules(self) -> list[Rule]:
        return [Rule(e.family, e.priority, e.action, e.table, e.mark, e.mask) for e in self._record.rules]

    @property
    def table(self) -> int:
        return self._record.table

    def record(self, rules: list[Rule], table: int, interface: str) -> None:
        """Note what is about to be done."""
        entries = [_RuleEntry(*rule) for rule in rules]
        self._write(Record(entries, table, interface))

    def clear(self) -> None:
        """Everything was undone."""
        self._record = Record()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, record: Record) -> None:
        self._record = record
        if self._path is not None:
            write_atomic(self._path, msgspec.json.encode(record))
