"""systemd-resolved, NetworkManager and the resolvconf programs: how they are called, and what a host looks like."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.core.dnscompile import OSConfig
from meshd.core.dnsway import Way
from meshd.host.linux import dnsfacts, dnsresolvconf
from meshd.host.linux.dnsfacts import HostDNS, look_at_host, resolvconf_kind
from meshd.host.linux.dnsnetworkmanager import NetworkManagerDNS
from meshd.host.linux.dnsresolvconf import DebianResolvconfDNS, OpenresolvDNS
from meshd.host.linux.dnsresolved import ResolvedDNS
from meshd.host.linux.journal import Journal

SPLIT = OSConfig((ip_address("100.100.100.100"),), ("mesh.test",), ("64.100.in-addr.arpa", "corp.test", "mesh.test"))
EVERYTHING = OSConfig((ip_address("100.100.100.100"), ip_address("fd7a:115c:a1e0::53")), ("mesh.test",))


class Programs:
    """Programs that note how they were called; ``refuse`` and ``answers`` by a word of the command."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.calls: list[str] = []
        self.texts: list[str] = []
        self.refuse: tuple[str, ...] = ()
        self.answers: dict[str, str] = {}

    def __call__(self, command: Sequence[str], text: str) -> str:
        line = " ".join(command)
        self.calls.append(line)
        self.texts.append(text)
        if any(word in line for word in self.refuse):
            raise MeshdError(f"{command[0]} failed: no", code="host")
        return next((answer for word, answer in self.answers.items() if word in line), "")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(Journal(tmp_path / "journal.json"))


def resolved(programs: Programs, folder: Path = Path("/nowhere")) -> ResolvedDNS:
    return ResolvedDNS(programs.journal, "mesh0", 7, programs, folder)


def test_resolved_split_names_only(programs: Programs) -> None:
    """DN-11: systemd-resolved with MatchDomains."""
    resolved(programs).apply(SPLIT)
    call = "busctl --auto-start=no call org.freedesktop.resolve1 /org/freedesktop/resolve1 "
    call += "org.freedesktop.resolve1.Manager "
    assert programs.calls == [
        call + "SetLinkDNS ia(iay) 7 1 2 4 100 100 100 100",
        call + "SetLinkDomains ia(sb) 7 3 mesh.test false 64.100.in-addr.arpa true corp.test true",
        call + "SetLinkDefaultRoute ib 7 false",
        call + "SetLinkLLMNR is 7 no",
        call + "SetLinkMulticastDNS is 7 no",
        call + "SetLinkDNSSEC is 7 no",
        call + "SetLinkDNSOverTLS is 7 no",
        call + "FlushCaches",
    ]


def test_resolved_all_names_by_the_root_domain(programs: Programs) -> None:
    """DN-11: an override of all names, with both families."""
    resolved(programs).apply(EVERYTHING)
    assert "SetLinkDNS ia(iay) 7 2 2 4 100 100 100 100 10 16 253 122 17 92 161 224" in programs.calls[0]
    assert programs.calls[1].endswith("SetLinkDomains ia(sb) 7 2 mesh.test false . true")
    assert programs.calls[2].endswith("SetLinkDefaultRoute ib 7 true")


def test_resolved_old_version_takes_fewer_domains_and_settings(programs: Programs) -> None:
    programs.refuse = ("arpa", "SetLinkDefaultRoute", "SetLinkDNSOverTLS", "FlushCaches")
    resolved(programs).apply(SPLIT)
    assert programs.calls[2].endswith("SetLinkDomains ia(sb) 7 2 mesh.test false corp.test true")


def test_resolved_refusal_is_a_message_with_what_to_do(programs: Programs) -> None:
    programs.refuse = ("SetLinkDNS ",)
    with pytest.raises(MeshdError, match="systemd-resolved refused SetLinkDNS") as found:
        resolved(programs).apply(SPLIT)
    assert "resolvectl" in str(found.value)


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        ("a(iay) 1 2 4 100 100 100 100\n", False),
        ("a(iay) 0\n", True),
        ("a(iay) 1 2 4 10 0 0 1\n", True),
        ("nonsense", True),
    ],
)
def test_resolved_lost_when_it_knows_other_servers(programs: Programs, answer: str, lost: bool) -> None:
    """After a restart it may have forgotten."""
    dns = resolved(programs)
    assert not dns.lost()
    dns.apply(SPLIT)
    programs.answers = {"GetLink": 'o "/org/freedesktop/resolve1/link/_37"\n', "_37": answer}
    assert dns.lost() is lost
    programs.answers = {}
    assert dns.lost()


def test_resolved_base_is_that_of_other_links(programs: Programs, tmp_path: Path) -> None:
    text = "nameserver 100.100.100.100\nnameserver 192.168.1.1\nsearch mesh.test lan\n"
    (tmp_path / "resolv.conf").write_text(text)
    dns = resolved(programs, tmp_path)
    dns.apply(SPLIT)
    assert dns.base() == OSConfig((ip_address("192.168.1.1"),), ("lan",))


def test_network_manager_device_is_modified_not_saved(programs: Programs) -> None:
    """DN-11: NetworkManager 1.26.0 to 1.26.5."""
    NetworkManagerDNS(programs.journal, "mesh0", programs).apply(SPLIT)
    domains = "mesh.test,~64.100.in-addr.arpa,~corp.test"
    assert programs.calls == [
        f"nmcli device modify mesh0 ipv4.dns 100.100.100.100 ipv4.dns-search {domains} ipv4.dns-priority 50 "
        "ipv4.ignore-auto-dns yes ipv4.never-default yes "
        f"ipv6.dns  ipv6.dns-search {domains} ipv6.dns-priority 50 ipv6.ignore-auto-dns yes ipv6.never-default yes"
    ]
    NetworkManagerDNS(programs.journal, "mesh0", programs).apply(EVERYTHING)
    assert "ipv4.dns-search mesh.test,~. ipv4.dns-priority -10" in programs.calls[1]


@pytest.mark.parametrize(
    ("kind", "add", "remove"),
    [
        (DebianResolvconfDNS, "resolvconf -a tun-meshd.inet", "resolvconf -d tun-meshd.inet"),
        (OpenresolvDNS, "resolvconf -m 0 -x -a meshd", "resolvconf -f -d meshd"),
    ],
)
def test_resolvconf_source_comes_and_goes(
    programs: Programs, tmp_path: Path, kind: type[DebianResolvconfDNS | OpenresolvDNS], add: str, remove: str
) -> None:
    """DN-11: debian-resolvconf and openresolv."""
    path = tmp_path / "resolv.conf"
    dns = kind(programs.journal, programs, path)
    dns.apply(EVERYTHING)
    assert programs.calls == [add]
    text = "nameserver 100.100.100.100\nnameserver fd7a:115c:a1e0::53\nsearch mesh.test\n"
    assert programs.texts[0].endswith(text)
    path.write_text("nameserver 10.0.0.1\n" + text)
    assert dns.lost()
    path.write_text(text + "nameserver 10.0.0.1\n")
    assert not dns.lost()
    dns.apply(OSConfig())
    assert programs.calls[1:] == [remove]
    dns.close()
    assert programs.calls[2:] == []


def test_openresolv_base_is_of_the_other_sources(programs: Programs) -> None:
    dns = OpenresolvDNS(programs.journal, programs)
    programs.answers = {" -i": "meshd eth0 wlan0\n", " -l": "nameserver 10.0.0.1\nsearch lan\n"}
    assert dns.base() == OSConfig((ip_address("10.0.0.1"),), ("lan",))
    assert programs.calls[-1] == "resolvconf -l eth0 wlan0"
    programs.answers = {" -i": "meshd"}
    assert dns.base() == OSConfig()


def test_debian_resolvconf_base_is_of_the_other_sources(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dnsresolvconf, "_DEBIAN_FOLDERS", (tmp_path / "none", tmp_path))
    (tmp_path / "tun-meshd.inet").write_text("nameserver 9.9.9.9\n")
    (tmp_path / "eth0.dhclient").write_text("nameserver 10.0.0.1")
    (tmp_path / "wlan0.dhclient").write_text("nameserver 10.0.0.2\n")
    base = DebianResolvconfDNS(programs.journal, programs).base()
    assert base.nameservers == (ip_address("10.0.0.1"), ip_address("10.0.0.2"))


@pytest.mark.parametrize(
    ("way", "undo"),
    [
        (Way.RESOLVED, "RevertLink"),
        (Way.NETWORK_MANAGER, "nmcli device reapply mesh0"),
        (Way.DEBIAN_RESOLVCONF, "resolvconf -d tun-meshd.inet"),
        (Way.OPENRESOLV, "resolvconf -f -d meshd"),
    ],
)
def test_journal_knows_before_anything_is_done(programs: Programs, tmp_path: Path, way: Way, undo: str) -> None:
    """A kill after the first call leaves an entry by which the next process undoes it."""

    def dns() -> HostDNS:
        journal = programs.journal
        ways: dict[Way, HostDNS] = {
            Way.RESOLVED: ResolvedDNS(journal, "mesh0", 7, programs),
            Way.NETWORK_MANAGER: NetworkManagerDNS(journal, "mesh0", programs),
            Way.DEBIAN_RESOLVCONF: DebianResolvconfDNS(journal, programs),
            Way.OPENRESOLV: OpenresolvDNS(journal, programs),
        }
        return ways[way]

    programs.refuse = ("Set", "modify", " -a ")
    with pytest.raises(MeshdError):
        dns().apply(EVERYTHING)
    assert len(programs.calls) == 1
    programs.journal = Journal(tmp_path / "journal.json")
    assert programs.journal.dns is not None
    assert programs.journal.dns.way == way.value
    programs.refuse = ()
    dns().close()
    assert undo in programs.calls[1]
    assert Journal(tmp_path / "journal.json").dns is None


def host(tmp_path: Path, resolv_conf: str) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text(resolv_conf)
    (tmp_path / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    return tmp_path


def test_facts_of_a_host_with_everything(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
    monkeypatch.setattr(dnsfacts.shutil, "which", lambda name: f"/bin/{name}" if name == "busctl" else None)
    programs.answers = {"NameHasOwner": "b true\n", "Version": 's "1.42.4"\n', "Mode": 's "systemd-resolved"\n'}
    facts = look_at_host(programs, host(tmp_path, "nameserver 127.0.0.53\n"))
    assert facts.resolved_up
    assert facts.networkmanager_up
    assert facts.networkmanager_version == "1.42.4"
    assert facts.networkmanager_uses_resolved
    assert facts.resolv_conf == b"nameserver 127.0.0.53\n"
    assert facts.nsswitch == "hosts: files dns\n"
    # Whoever only looks starts no service that its administrator has stopped.
    assert all("--auto-start=no" in call or "NameHasOwner" in call for call in programs.calls)


def test_facts_without_a_bus_ask_nobody(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    facts = look_at_host(programs, host(tmp_path, "x"), tmp_path / "no-socket")
    assert not facts.resolved_up
    assert programs.calls == []


def test_facts_in_a_network_namespace_leave_the_machines_services_alone(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interface number there means another interface here."""
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    monkeypatch.setattr(dnsfacts, "stands_apart", lambda: True)
    monkeypatch.setattr(dnsfacts, "resolvconf_kind", lambda: "debian")
    (tmp_path / "socket").touch()
    facts = look_at_host(programs, host(tmp_path, "# by resolvconf\n"), tmp_path / "socket")
    assert (facts.resolved_up, facts.resolvconf, programs.calls) == (False, "", [])


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("echo 'Debian resolvconf 1.91'", "debian"),
        ("echo 'Error: unknown option' >&2; exit 99", "debian"),
        ("echo 'openresolv 3.12.0'", "openresolv"),
        ("echo 'systemd 252 (252.39-1~deb12u1)'", ""),
        (None, ""),
    ],
)
def test_resolvconf_kind_by_what_the_program_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, kind: str
) -> None:
    """DN-11: the kind of the resolvconf program."""
    if script is not None:
        program = tmp_path / "resolvconf"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolvconf_kind() == kind
