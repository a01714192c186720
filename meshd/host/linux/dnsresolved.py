"""systemd-resolved, told about our interface over D-Bus (org.freedesktop.resolve1(5)).

The calls are made by busctl(1), which is there wherever systemd is: no library, no connection to keep, and nothing to
do when the bus is restarted.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.dnscompile import OSConfig
from meshd.core.dnsway import Way
from meshd.host.linux.dnsdirect import look
from meshd.host.linux.journal import DnsEntry, Journal
from meshd.host.linux.program import Run, run_program
from meshd.host.resolvconf import base_of

log = get_logger(__name__)

SERVICE, OBJECT = "org.freedesktop.resolve1", "/org/freedesktop/resolve1"
_MANAGER = "org.freedesktop.resolve1.Manager"
_RUN_FOLDER = Path("/run/systemd/resolve")
_REVERSE = ".arpa"


class ResolvedDNS:
    """Name servers and domains of one link. Methods raise MeshdError."""

    can_split = True

    def __init__(
        self, journal: Journal, interface: str, index: int, run: Run = run_program, folder: Path = _RUN_FOLDER
    ) -> None:
        self._journal = journal
        self._interface = interface
        self._index = index
        self._run = run
        self._folder = folder
        self._applied = OSConfig()

    @property
    def watched(self) -> tuple[Path, ...]:
        """It writes the files when links change, and makes the socket at its start."""
        return tuple(self._folder / name for name in ("stub-resolv.conf", "resolv.conf", "io.systemd.Resolve"))

    def base(self) -> OSConfig:
        """The resolvers of the other links. The file has those of all, with our domains among them."""
        found = base_of(look(self._folder / "resolv.conf").data)
        others = [name for name in found.search_domains if name not in self._applied.search_domains]
        return msgspec.structs.replace(found, search_domains=tuple(others))

    def apply(self, config: OSConfig) -> None:
        if config.is_empty:
            self.close()
            return
        self._journal.record_dns(DnsEntry(Way.RESOLVED.value, self._interface))
        servers = [word for server in config.nameservers for word in _server(server.packed)]
        self._call("SetLinkDNS", "ia(iay)", str(len(config.nameservers)), *servers)
        domains = link_domains(config)
        try:
            self._set_domains(domains)
        except MeshdError:
            # Old versions take only so many: names matter more than the names of addresses.
            fewer = [pair for pair in domains if not pair[0].endswith(_REVERSE)]
            if fewer == domains:
                raise
            self._set_domains(fewer)
        everything = bool(config.nameservers) and not config.match_domains
        self._try("SetLinkDefaultRoute", "ib", "true" if everything else "false")
        # Names of the mesh come through an encrypted tunnel and are signed by nobody.
        for setting in ("SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS"):
            self._try(setting, "is", "no")
        self._flush()
        self._applied = config

    def lost(self) -> bool:
        """Whether systemd-resolved does not know any more what it was told."""
        if not self._applied.nameservers:
            return False
        command = ("busctl", "--auto-start=no", "call", SERVICE, OBJECT, _MANAGER, "GetLink", "i", str(self._index))
        try:
            link = self._run(command, "").split('"')[1]
            known = self._run(("busctl", "get-property", SERVICE, link, "org.freedesktop.resolve1.Link", "DNS"), "")
        except (MeshdError, IndexError):
            return True
        wanted = f"{len(self._applied.nameservers)} " + " ".join(
            word for server in self._applied.nameservers for word in _server(server.packed)
        )
        return known.split() != ["a(iay)", *wanted.split()]

    def close(self) -> None:
        if self._journal.dns is not None:
            self._call("RevertLink", "i")
            self._flush()
            self._applied = OSConfig()
            self._journal.record_dns(None)

    def _set_domains(self, domains: list[tuple[str, bool]]) -> None:
        words = [word for name, routing in domains for word in (name, "true" if routing else "false")]
        self._call("SetLinkDomains", "ia(sb)", str(len(domains)), *words)

    def _call(self, method: str, signature: str, *arguments: str) -> None:
        words = (SERVICE, OBJECT, _MANAGER, method, signature, str(self._index), *arguments)
        try:
            self._run(("busctl", "--auto-start=no", "call", *words), "")
        except MeshdError as error:
            raise MeshdError(
                f"systemd-resolved refused {method}: {error.message}",
                code="host",
                hint="Look at `resolvectl status` and `systemctl status systemd-resolved`.",
            ) from None

    def _try(self, method: str, signature: str, argument: str) -> None:
        """What versions before it do without."""
        try:
            self._call(method, signature, argument)
        except MeshdError as error:
            log.info("resolved_setting_refused", extra=kv(method=method, reason=error.message))

    def _flush(self) -> None:
        try:
            self._run(("busctl", "--auto-start=no", "call", SERVICE, OBJECT, _MANAGER, "FlushCaches"), "")
        except MeshdError as error:
            log.info("resolved_flush_failed", extra=kv(reason=error.message))


def link_domains(config: OSConfig) -> list[tuple[str, bool]]:
    """The domains of a link, and whether they only route: search domains do both."""
    found = dict.fromkeys(config.search_domains, False)
    for domain in config.match_domains:
        found.setdefault(domain, True)
    if config.nameservers and not config.match_domains:
        found["."] = True
    return list(found.items())


def _server(packed: bytes) -> list[str]:
    family = "2" if len(packed) == 4 else "10"
    return [family, str(len(packed)), *map(str, packed)]
