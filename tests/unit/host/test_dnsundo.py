"""The host's resolvers after a daemon that was killed."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from meshd.core.dnscompile import OSConfig
from meshd.host.linux import dnsundo
from meshd.host.linux.dnsdirect import DirectDNS
from meshd.host.linux.dnsundo import undo_all, undo_dns, undo_unknown
from meshd.host.linux.journal import DnsEntry, Journal

OURS = OSConfig((ip_address("100.100.100.100"),), ("mesh.test",))
BEFORE = b"nameserver 192.168.1.1\n"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The file that a killed daemon left; its journal is beside it."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(BEFORE)
    path.chmod(0o640)
    DirectDNS(Journal(tmp_path / "journal.json"), path).apply(OURS)
    assert b"100.100.100.100" in path.read_bytes()
    return path


def test_undo_by_the_journal(killed: Path) -> None:
    """DN-11: `meshd --cleanup` after SIGKILL."""
    journal = Journal(killed.with_name("journal.json"))
    undo_dns(journal)
    assert killed.read_bytes() == BEFORE
    assert killed.stat().st_mode & 0o777 == 0o640
    assert not killed.with_name("journal.json").exists()


def test_undo_without_journal_by_the_file_itself(killed: Path) -> None:
    """A container's state is gone, its resolv.conf is not: its next daemon could not find the server to log in."""
    undo_unknown(Journal(None), killed)
    assert killed.read_bytes() == BEFORE
    undo_unknown(Journal(None), killed)
    assert killed.read_bytes() == BEFORE


def test_undo_with_damaged_journal_by_the_file_itself(killed: Path) -> None:
    path = killed.with_name("journal.json")
    path.write_bytes(path.read_bytes()[:-9])
    journal = Journal(path)
    assert journal.dns is None
    undo_unknown(journal, killed)
    assert killed.read_bytes() == BEFORE


def test_undo_after_somebody_else_wrote_leaves_theirs(killed: Path) -> None:
    killed.write_bytes(b"nameserver 9.9.9.9\n")
    undo_dns(Journal(killed.with_name("journal.json")))
    assert killed.read_bytes() == b"nameserver 9.9.9.9\n"


def test_undo_of_the_machines_file_in_a_namespace_is_refused(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsundo, "foreign_problem", lambda _: "not ours")
    before = killed.read_bytes()
    undo_unknown(Journal(None), killed)
    assert killed.read_bytes() == before


@pytest.mark.parametrize("entry", [DnsEntry("systemd-resolved", "gone0"), DnsEntry("something-new", "x")])
def test_undo_of_what_went_with_its_interface(tmp_path: Path, entry: DnsEntry) -> None:
    journal = Journal(tmp_path / "journal.json")
    journal.record_dns(entry)
    undo_dns(journal)
    assert journal.dns is None


def test_undo_that_fails_is_logged_and_tried_again(
    killed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    journal = Journal(killed.with_name("journal.json"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        patch.setattr(os, "open", refused)
        undo_all(journal, unknown=False)
    assert any("dns_not_restored" in record.message for record in caplog.records)
    assert journal.dns is not None
    undo_all(journal, unknown=False)
    assert killed.read_bytes() == BEFORE
