"""Keeps our nftables table as it should be, by the program nft."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from meshd.base.addr import IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.firewall import FirewallConfig
from meshd.host.linux import nft
from meshd.host.linux.program import Run, may_pass

log = get_logger(__name__)

_LOAD = ("nft", "-j", "-f", "-")


class NftRuleset:
    """One table of ours, changed by one transaction each time."""

    def __init__(self, interface: str, run: Run) -> None:
        self._interface = interface
        self._table = nft.table_name(interface)
        self._run = run
        self._features = frozenset(nft.FEATURES)
        self._chains: dict[str, nft.Chain] | None = None
        self._listing = ""

    def apply(
        self, config: FirewallConfig, ports: Sequence[int], exempt: Iterable[IPPrefix], *, masquerade: bool
    ) -> frozenset[str]:
        """Bring the table there; the features that this kernel lacks for it. Raises MeshdError."""
        exempt = list(exempt)
        features = self._features
        while True:
            wanted = nft.chains(config, self._interface, ports, exempt, masquerade=masquerade, features=features)
            if wanted == self._chains:
                break
            try:
                self._run(_LOAD, json.dumps(nft.batch(self._table, self._chains, wanted)))
            except MeshdError as error:
                self._chains = None
                features = self._without_one_more(features, error)
                continue
            self._chains = wanted
            self._listing = self._list()
            self._features = features
            break
        return frozenset(nft.FEATURES) - features

    def _without_one_more(self, features: frozenset[str], error: MeshdError) -> frozenset[str]:
        """What to try next: kernels in containers and small devices come without some parts."""
        # "Operation not permitted", "Permission denied": it is not the kernel
        if "permi" in error.message or may_pass(error.message):
            raise error
        left = [feature for feature in nft.FEATURES if feature in features]
        if not left:
            raise error
        log.info("nft_feature_missing", extra=kv(feature=left[0], reason=error.message))
        return features - {left[0]}

    def intact(self) -> bool:
        """Whether the table is still as ``apply`` left it."""
        return self._chains is not None and self._list() == self._listing

    def forget(self) -> None:
        """Take nothing for granted any more: the next ``apply`` makes the table anew, with all that the kernel can."""
        self._chains, self._features = None, frozenset(nft.FEATURES)

    def _list(self) -> str:
        try:
            return self._run(["nft", "-j", "-a", "list", "table", nft.FAMILY, self._table], "")
        except MeshdError:  # there is no such table
            return ""

    def remove(self) -> None:
        """Leave no table, whether there is one or not. Raises MeshdError."""
        self._chains = None
        self._run(_LOAD, json.dumps(nft.removal(self._table)))
