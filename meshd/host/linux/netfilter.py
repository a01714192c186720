"""Keeps the host's packet filter as we need it, by nftables or iptables, and undoes it.

Only our own table or chains are touched. Failing here never stops the node: ``apply`` says what is wrong.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from meshd.base.addr import IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.base.ranges import CGNAT
from meshd.core.firewall import OFF, ON, FirewallConfig
from meshd.host.linux import nft
from meshd.host.linux.forwarding import strict_interfaces
from meshd.host.linux.iptables import HOOKS, drops_the_rest
from meshd.host.linux.iptablesruleset import IptablesRuleset
from meshd.host.linux.journal import FirewallEntry, Journal
from meshd.host.linux.nftruleset import NftRuleset
from meshd.host.linux.program import Run, may_pass, run_program

log = get_logger(__name__)

ENVIRONMENT = "TS_DEBUG_FIREWALL_MODE"
NFT, IPTABLES, LEGACY = "nft", "iptables", "iptables-legacy"
_LEGACY_TABLES = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}
_SRC_VALID_MARK = "/proc/sys/net/ipv4/conf/all/src_valid_mark"
_FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
_FIREWALLD = "firewalld"
_WITHOUT = "or do without such rules: mesh set --netfilter-mode=off"


class Ruleset(Protocol):
    """Rules made by one program."""

    def apply(
        self, config: FirewallConfig, ports: Sequence[int], exempt: Iterable[IPPrefix], *, masquerade: bool
    ) -> frozenset[str]: ...

    def intact(self) -> bool: ...

    def forget(self) -> None: ...

    def remove(self) -> None: ...


class Outcome(msgspec.Struct, frozen=True):
    """How it went. ``mode`` is what control is told as FirewallMode, "" while nothing is in use."""

    problem: str = ""
    mode: str = ""
    answers_marked: bool = False  # so that those from the Internet pass a strict reverse path check
    restored: bool = False  # somebody had removed our rules


class Netfilter:
    """The packet filter's rules for one tunnel interface."""

    def __init__(
        self,
        interface: str,
        journal: Journal,
        *,
        run: Run = run_program,
        have: Callable[[str], bool] = lambda program: shutil.which(program) is not None,
        root: Path = Path("/"),
    ) -> None:
        self._interface = self._renamed = interface
        self._journal = journal
        self._run = run
        self._have = have
        self._root = root
        self._backend = ""
        self._rules: Ruleset | None = None
        self._variant: str | None = None
        self._stands = False  # the rules were made, and were not touched since by us
        self._complaint = ""

    @property
    def backend(self) -> str:
        """The program in use, "" for none."""
        return self._backend

    def rename(self, interface: str) -> None:
        """The tunnel interface has another name; the next ``apply`` makes the rules for that one. May be called while
        ``apply`` runs in another thread."""
        self._renamed = interface

    def apply(self, config: FirewallConfig, ports: Sequence[int], attached: Iterable[IPPrefix] = ()) -> Outcome:
        """Bring the rules to ``config``, also where somebody else changed them. Our UDP ``ports`` stay open;
        ``attached`` are the host's own networks."""
        try:
            if self._interface != self._renamed:
                self.close()
                self._interface = self._renamed
            if config.mode == OFF:
                self.close()
                return Outcome()
            backend, mode, problem = self._choose(config)
            if backend != self._backend:
                self._switch(backend)
            if self._rules is None:
                return Outcome(problem)
            exempt = [p for p in attached if p.version == 4 and CGNAT.overlaps(p) and p.prefixlen < 32]
            return self._apply(self._rules, config, ports, exempt, mode, problem)
        except (MeshdError, OSError, ValueError) as error:
            if str(error) != self._complaint:  # it is tried again and again
                self._complaint = str(error)
                log.warning("firewall_failed", extra=kv(backend=self._backend, reason=error))
            if self._rules is not None:
                self._rules.forget()
            return Outcome(_refused(str(error)))

    def _apply(
        self,
        rules: Ruleset,
        config: FirewallConfig,
        ports: Sequence[int],
        exempt: Sequence[IPPrefix],
        mode: str,
        problem: str,
    ) -> Outcome:
        restored = self._stands and not rules.intact()
        if restored:
            rules.forget()
        self._stands = False
        forwards = config.forwards or self._forwarding()
        # Marking answers makes the kernel track every connection: only where a strict check asks for it.
        marks = config.exit_node and config.mode == ON and bool(strict_interfaces(self._root, besides=self._interface))
        config = msgspec.structs.replace(config, exit_node=marks)
        missing = rules.apply(config, ports, exempt, masquerade=config.snat and forwards)
        self._stands, self._complaint = True, ""
        marks = self._set_src_valid_mark(wanted=marks and nft.CONNMARK not in missing)
        problems = [problem]
        if config.snat and config.forwards and nft.NAT in missing:
            problems.append(
                "this kernel cannot translate addresses: networks behind this node see mesh addresses and must "
                "route them back to it; load the kernel module nft_masq or xt_MASQUERADE to change that"
            )
        elif config.snat and config.forwards_v6 and nft.NAT6 in missing:
            problems.append(
                "this kernel cannot translate IPv6 addresses: networks behind this node see mesh addresses for "
                "IPv6 and must route them back to it"
            )
        if config.forwards and config.mode == ON:
            problems.append(self._dropped_by_others())
        return Outcome("; ".join(filter(None, problems)), mode, marks, restored)

    def close(self) -> None:
        """Take back everything. What fails is logged and stays in the journal."""
        self._backend, self._rules, self._variant, self._stands = "", None, None, False
        undo(self._journal, self._run, self._have, self._root)

    def _switch(self, backend: str) -> None:
        if self._backend:
            self.close()
        rules = _ruleset(backend, self._interface, self._run, self._have)
        if rules is not None:
            held = self._journal.firewall
            entry = FirewallEntry(backend, self._interface)
            self._journal.record_firewall([*held, entry] if entry not in held else held)
        self._backend, self._rules = backend, rules
        log.info("firewall_chosen", extra=kv(backend=backend or "none"))

    def _choose(self, config: FirewallConfig) -> tuple[str, str, str]:
        """The program to use, its name for control, and what the user should know of the choice (RT-13)."""
        forced = os.environ.get(ENVIRONMENT, "")
        wish = forced if forced in ("nftables", "iptables") else "" if forced == "auto" else config.kind
        listed, reason = self._chains_of_others()
        iptables = self._iptables()
        if wish == "nftables" and listed is not None:
            return NFT, "nft-forced", ""
        if wish == "iptables" and iptables:
            return iptables, "ipt-forced", ""
        instead = f"{wish} was asked for and does not work here" if wish else ""
        if listed is not None:
            if not iptables:
                return NFT, "nft-noipt", instead
            in_use = self._iptables_drops(listed, iptables)
            return (iptables, "ipt-inuse", instead) if in_use else (NFT, "nft", instead)
        if iptables:
            return iptables, "ipt", instead
        return "", "", _refused(f"{reason}; there is no iptables")

    def _chains_of_others(self) -> tuple[list[nft.ForeignChain] | None, str]:
        """Foreign chains, or None and the reason where nft does not work. Raises MeshdError where it may work in a
        minute: that is no reason to have the rules by another program, or none."""
        if not self._have("nft"):
            return None, "there is no program nft"
        try:
            return nft.foreign_chains(json.loads(self._run(["nft", "-j", "list", "chains"], ""))), ""
        except MeshdError as error:
            if may_pass(error.message):
                raise
            return None, error.message
        except ValueError as error:
            return None, str(error)

    def _iptables(self) -> str:
        """Which iptables, "" for none. Rules of the older kind go on being made by the older program."""
        if self._variant is None:
            legacy = self._have(f"{LEGACY}-restore") and _read(self._root, str(_LEGACY_TABLES["ip"]))
            if legacy and _says_something(self._run([f"{LEGACY}-save"], "")):
                self._variant = LEGACY
            else:
                self._variant = IPTABLES if self._have("iptables-restore") else ""
        return self._variant

    def _iptables_drops(self, listed: list[nft.ForeignChain], iptables: str) -> bool:
        """Whether rules made by iptables drop what iptables does not accept, as Docker's and ufw's do."""
        tools = {"ip": iptables, "ip6": iptables.replace("ip", "ip6", 1)}
        if iptables == LEGACY:
            # Asking for a table that is not there would make it.
            tools = {family: tool for family, tool in tools.items() if _read(self._root, str(_LEGACY_TABLES[family]))}
        else:
            # Many write a table "ip filter" for nft by hand. Its chains are not those that iptables reaches.
            families = {c.family for c in listed if c.table == "filter" and c.chain in HOOKS}
            tools = {family: tool for family, tool in tools.items() if family in families}
        return any(drops_the_rest(self._saved(tool)) for tool in tools.values() if self._have(f"{tool}-restore"))

    def _saved(self, tool: str) -> str:
        """The filter table, "" where it is one that iptables does not understand."""
        try:
            return self._run([f"{tool}-save", "-t", "filter"], "")
        except MeshdError as error:
            if may_pass(error.message):
                raise
            log.info("iptables_table_unknown", extra=kv(reason=error))
            return ""

    def _dropped_by_others(self) -> str:
        for found in self._chains_of_others()[0] or []:
            place = [found.family, found.table]
            if self._backend == IPTABLES and found.table == "filter" and found.chain in HOOKS:
                continue  # our rules stand before theirs
            if found.hook != "forward" or not (found.drops or self._ends_in_drop(*place, found.chain)):
                continue
            if f'"{self._interface}"' not in self._run(["nft", "list", "table", *place], ""):
                command = f" (firewall-cmd --permanent --zone=trusted --add-interface={self._interface})"
                return (
                    f"another firewall (table {found.family} {found.table}, chain {found.chain}) drops forwarded "
                    f"packets; let it accept those from and to the interface {self._interface}"
                    f"{command if found.table == _FIREWALLD else ''}"
                )
        return ""

    def _ends_in_drop(self, *chain: str) -> bool:
        try:
            return nft.ends_in_drop(json.loads(self._run(["nft", "-j", "list", "chain", *chain], "")))
        except (MeshdError, ValueError) as error:  # the chain may be gone by now
            log.info("foreign_chain_unknown", extra=kv(chain=" ".join(chain), reason=error))
            return False

    def _set_src_valid_mark(self, *, wanted: bool) -> bool:
        """Let the reverse path check look at the mark; whether it does."""
        if not wanted:
            _restore_settings(self._journal, self._root)
            return False
        if _read(self._root, _SRC_VALID_MARK) != "0":
            return True
        before = self._journal.settings
        self._journal.record_settings({**before, _SRC_VALID_MARK: "0"})
        try:
            _file(self._root, _SRC_VALID_MARK).write_text("1")
        except OSError as error:  # containers have /proc/sys read-only; the rules stand all the same
            self._journal.record_settings({p: value for p, value in before.items() if p != _SRC_VALID_MARK})
            log.warning("setting_refused", extra=kv(path=_SRC_VALID_MARK, reason=error.strerror))
            return False
        return True

    def _forwarding(self) -> bool:
        """Whether the host forwards at all; containers make it do so without any routes of ours."""
        return any(_read(self._root, path) not in ("", "0") for path in _FORWARDING)


def undo(
    journal: Journal,
    run: Run = run_program,
    have: Callable[[str], bool] = lambda program: shutil.which(program) is not None,
    root: Path = Path("/"),
) -> None:
    """Take back what the journal tells of, ours or of a daemon that is gone."""
    left = []
    for entry in journal.firewall:
        rules = _ruleset(entry.backend, entry.interface, run, have)
        try:
            if rules is not None:
                rules.remove()
        except (MeshdError, OSError) as error:
            log.warning("firewall_not_removed", extra=kv(backend=entry.backend, reason=error))
            left.append(entry)
    journal.record_firewall(left)
    _restore_settings(journal, root)


def _restore_settings(journal: Journal, root: Path) -> None:
    """Put kernel settings back, those that are still as we made them."""
    settings = journal.settings
    for path, before in list(settings.items()):
        try:
            if path == _SRC_VALID_MARK and before == "0" and _read(root, path) == "1":
                _file(root, path).write_text(before)
            del settings[path]
        except OSError as error:
            log.warning("setting_not_restored", extra=kv(path=path, reason=error))
    journal.record_settings(settings)


def _ruleset(backend: str, interface: str, run: Run, have: Callable[[str], bool]) -> Ruleset | None:
    if backend == NFT:
        return NftRuleset(interface, run)
    if backend in (IPTABLES, LEGACY):
        return IptablesRuleset(interface, "legacy" if backend == LEGACY else "", run, have)
    return None


def _says_something(saved: str) -> bool:
    """Whether an iptables-save text is more than empty chains that accept."""
    return any(
        line.startswith("-A ") or (line.startswith(":") and line.split()[1] == "DROP") for line in saved.splitlines()
    )


def _refused(reason: str) -> str:
    """What to do about rules that could not be set."""
    text = f"packet filter rules could not be set: {reason}. Subnet routes and exit nodes lack address translation"
    lowered = reason.lower()
    if "not permitted" in lowered or "permission" in lowered:
        return f"{text}. Run meshd with CAP_NET_ADMIN (in containers: --cap-add=NET_ADMIN), {_WITHOUT}"
    if may_pass(lowered):
        return f"{text}. It is tried again every minute; see what keeps this host busy, {_WITHOUT}"
    return f"{text}. Install nftables (or iptables), {_WITHOUT}"


def _file(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _read(root: Path, path: str) -> str:
    try:
        return _file(root, path).read_text().strip()
    except OSError:
        return ""
