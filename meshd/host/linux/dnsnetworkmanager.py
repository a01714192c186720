"""NetworkManager 1.26.0 to 1.26.5, which would override what systemd-resolved is told past it (nmcli(1))."""

from __future__ import annotations

from pathlib import Path

from meshd.core.dnscompile import OSConfig
from meshd.core.dnsway import Way
from meshd.host.linux.dnsdirect import look
from meshd.host.linux.dnsresolved import link_domains
from meshd.host.linux.journal import DnsEntry, Journal
from meshd.host.linux.program import Run, run_program
from meshd.host.resolvconf import base_of

_FOLDER = Path("/run/systemd/resolve")
# Lower counts more. A negative one shuts out all others, so that no question goes past us.
_ALL_NAMES, _SOME_NAMES, _DOMAINS_ONLY = "-10", "50", "100"


class NetworkManagerDNS:
    """The settings of our interface as NetworkManager holds them while it runs; nothing is saved to disk.

    Methods raise MeshdError.
    """

    can_split = True

    def __init__(self, journal: Journal, interface: str, run: Run = run_program, folder: Path = _FOLDER) -> None:
        self._journal = journal
        self._interface = interface
        self._run = run
        self._folder = folder
        self._applied = False

    @property
    def watched(self) -> tuple[Path, ...]:
        """What systemd-resolved writes when links change."""
        return (self._folder / "resolv.conf",)

    def base(self) -> OSConfig:
        return base_of(look(self._folder / "resolv.conf").data)

    def apply(self, config: OSConfig) -> None:
        if config.is_empty:
            self.close()
            return
        self._journal.record_dns(DnsEntry(Way.NETWORK_MANAGER.value, self._interface))
        if not config.nameservers:
            priority = _DOMAINS_ONLY
        else:
            priority = _SOME_NAMES if config.match_domains else _ALL_NAMES
        domains = ",".join(f"~{name}" if routing else name for name, routing in link_domains(config))
        words: list[str] = []
        for family, version in (("ipv4", 4), ("ipv6", 6)):
            servers = ",".join(str(server) for server in config.nameservers if server.version == version)
            words += [f"{family}.dns", servers, f"{family}.dns-search", domains, f"{family}.dns-priority", priority]
            words += [f"{family}.ignore-auto-dns", "yes", f"{family}.never-default", "yes"]
        self._run(("nmcli", "device", "modify", self._interface, *words), "")
        self._applied = True

    def lost(self) -> bool:
        """Whether NetworkManager has forgotten what it was told."""
        if not self._applied:
            return False
        known = self._run(("nmcli", "-g", "IP4.DNS,IP6.DNS", "device", "show", self._interface), "")
        return not known.strip()

    def close(self) -> None:
        if self._journal.dns is not None:
            self._run(("nmcli", "device", "reapply", self._interface), "")
            self._applied = False
            self._journal.record_dns(None)
