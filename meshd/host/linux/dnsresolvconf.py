"""The two programs called ``resolvconf``, which blend what several sources say into /etc/resolv.conf."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from meshd.base.log import get_logger, kv
from meshd.core.dnscompile import OSConfig
from meshd.core.dnsway import Way
from meshd.host.linux.dnsdirect import look
from meshd.host.linux.journal import DnsEntry, Journal
from meshd.host.linux.program import Run, run_program
from meshd.host.resolvconf import RESOLV_CONF, base_of
from meshd.wire.resolvconf import decode_resolv_conf, encode_resolv_conf

log = get_logger(__name__)

# Debian's orders its sources by name: tunnels stand before every kind of network card.
DEBIAN_SOURCE, OPENRESOLV_SOURCE = "tun-meshd.inet", "meshd"
_DEBIAN_FOLDERS = (Path("/run/resolvconf/interface"), Path("/etc/resolvconf/run/interface"))


class _ResolvconfDNS(ABC):
    """Common to both; methods raise MeshdError."""

    can_split = False
    way: Way
    source: str
    _add: Sequence[str]
    _remove: Sequence[str]

    def __init__(self, journal: Journal, run: Run = run_program, path: Path = Path(RESOLV_CONF)) -> None:
        self._journal = journal
        self._run = run
        self._path = path
        self._applied = OSConfig()

    @property
    def watched(self) -> tuple[Path, ...]:
        """The file that comes out of the blend."""
        return (self._path,)

    @abstractmethod
    def base(self) -> OSConfig:
        """What the other sources say."""

    def apply(self, config: OSConfig) -> None:
        if config.is_empty:
            self.close()
            return
        self._journal.record_dns(DnsEntry(self.way.value, self.source))
        self._run(("resolvconf", *self._add, self.source), self._text(config).decode())
        self._applied = config

    def lost(self) -> bool:
        """Whether the file does not name our resolvers first."""
        wanted = self._applied.nameservers
        return _without(self._path, wanted) if wanted else False

    def close(self) -> None:
        if self._journal.dns is not None:
            self._run(("resolvconf", *self._remove, self.source), "")
            self._applied = OSConfig()
            self._journal.record_dns(None)

    def _text(self, config: OSConfig) -> bytes:
        return encode_resolv_conf(config.nameservers, config.search_domains)


class DebianResolvconfDNS(_ResolvconfDNS):
    """Debian's. It cannot shut out other sources: ours comes first, and the others are asked when we are silent."""

    way, source, _add, _remove = Way.DEBIAN_RESOLVCONF, DEBIAN_SOURCE, ("-a",), ("-d",)

    def base(self) -> OSConfig:
        folder = next((folder for folder in _DEBIAN_FOLDERS if folder.is_dir()), None)
        if folder is None:
            return base_of(look(self._path).data)
        names = [entry.name for entry in sorted(folder.iterdir()) if entry.name != self.source]
        texts = [look(folder / name).data for name in names]
        return base_of(b"\n".join(texts))


class OpenresolvDNS(_ResolvconfDNS):
    """openresolv, which lets one source stand alone (``-x``)."""

    way, source = Way.OPENRESOLV, OPENRESOLV_SOURCE
    _add, _remove = ("-m", "0", "-x", "-a"), ("-f", "-d")

    def base(self) -> OSConfig:
        names = [name for name in self._run(("resolvconf", "-i"), "").split() if name != self.source]
        if not names:
            return OSConfig()
        return base_of(self._run(("resolvconf", "-l", *names), "").encode())


def _without(path: Path, wanted: Sequence[object]) -> bool:
    """Whether the file does not begin with these name servers."""
    named = decode_resolv_conf(look(path).data).nameservers[: len(wanted)]
    lost = list(named) != [str(server) for server in wanted]
    if lost:
        log.info("resolv_conf_without_us", extra=kv(path=path))
    return lost
