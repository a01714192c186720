"""Keeps our iptables chains as they should be, by the programs iptables-save and iptables-restore."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from meshd.base.addr import IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.firewall import ON, FirewallConfig
from meshd.host.linux import iptables
from meshd.host.linux.nft import CONNMARK, NAT, NAT6
from meshd.host.linux.program import Run, may_pass

log = get_logger(__name__)

_LACKING = {("nat", 4): NAT, ("nat", 6): NAT6, ("mangle", 4): CONNMARK, ("mangle", 6): CONNMARK}
_IPV6 = Path("/proc/net/if_inet6")


class IptablesRuleset:
    """Our chains, changed by one transaction for each table. ``variant`` is "" for the host's default iptables, or
    "legacy" where rules of that kind are in use."""

    def __init__(
        self,
        interface: str,
        variant: str,
        run: Run,
        have: Callable[[str], bool],
        has_ipv6: Callable[[], bool] = _IPV6.exists,
    ) -> None:
        self._interface = interface
        self._run = run
        self._have = have
        self._has_ipv6 = has_ipv6
        suffix = f"-{variant}" if variant else ""
        self._tools = {4: f"iptables{suffix}", 6: f"ip6tables{suffix}"}
        self._hooked = False
        self._wanted: object = None
        self._listing: object = None
        self._missing: frozenset[str] = frozenset()

    def _present(self) -> dict[int, str]:
        """The tools for the IP versions of this host."""
        return {
            version: tool
            for version, tool in self._tools.items()
            if version == 4 or (self._have(f"{tool}-restore") and self._has_ipv6())
        }

    def apply(
        self, config: FirewallConfig, ports: Sequence[int], exempt: Iterable[IPPrefix], *, masquerade: bool
    ) -> frozenset[str]:
        """Bring the chains there; the features that this kernel lacks for it. Raises MeshdError."""
        exempt, hooked, tools = list(exempt), config.mode == ON, self._present()
        wanted = {
            version: iptables.chains(config, self._interface, ports, version, exempt, masquerade=masquerade)
            for version in tools
        }
        if (wanted, hooked) == self._wanted:
            return self._missing
        self._wanted = None
        missing = {NAT6} if 6 not in tools else set()
        for version, tool in tools.items():
            present = self._lines(tool)
            for table in iptables.TABLES:
                text = iptables.restore_text(
                    table, wanted[version], present[table], self._interface, hooked=hooked, unhook=self._hooked
                )
                if not text:
                    continue
                try:
                    self._run([f"{tool}-restore", "--noflush", "--wait"], text)
                except MeshdError as error:
                    feature = _LACKING.get((table, version))
                    if feature is None or "permi" in error.message.lower() or may_pass(error.message):
                        raise
                    log.info("iptables_feature_missing", extra=kv(feature=feature, reason=error.message))
                    missing.add(feature)
        self._hooked, self._wanted, self._missing = hooked, (wanted, hooked), frozenset(missing)
        self._listing = self._all_lines()
        return self._missing

    def intact(self) -> bool:
        """Whether our chains and what leads to them are still as ``apply`` left them."""
        return self._wanted is not None and self._all_lines() == self._listing

    def forget(self) -> None:
        """Take nothing for granted any more: the next ``apply`` looks at what there is."""
        self._wanted = None

    def _all_lines(self) -> dict[int, dict[str, list[str]]]:
        return {version: self._lines(tool) for version, tool in self._present().items()}

    def _lines(self, tool: str) -> dict[str, list[str]]:
        return iptables.listing(self._run([f"{tool}-save"], ""), self._interface)

    def remove(self) -> None:
        """Leave none of our chains, whether there are any or not. Raises MeshdError."""
        self._wanted, self._hooked = None, False
        for tool in self._present().values():
            for table, present in self._lines(tool).items():
                text = iptables.restore_text(table, {}, present, self._interface, hooked=False)
                if text:
                    self._run([f"{tool}-restore", "--noflush", "--wait"], text)
