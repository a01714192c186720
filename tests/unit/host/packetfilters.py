"""A host's packet filter programs, as far as these tests need them: what nft and iptables keep, and refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from meshd.base.errors import MeshdError

BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "POSTROUTING"),
    "mangle": ("PREROUTING", "OUTPUT"),
}


class PacketFilters:
    """``run`` and ``have`` for the code under test. ``tables`` is what nft holds, ``kept`` what iptables does."""

    def __init__(self, *programs: str) -> None:
        self.programs = set(programs or ("nft", "iptables-restore", "ip6tables-restore"))
        self.tables: dict[str, Any] = {}
        self.foreign: list[dict[str, Any]] = []
        self.foreign_rules: dict[str, list[Any]] = {}
        self.policy: dict[str, str] = {}
        """Of iptables' built-in chains, those that drop."""
        self.refuse: dict[str, str] = {}
        """A word in an nft batch or a table's name, and the complaint that it earns."""
        self.kept: dict[str, dict[str, dict[str, list[str]]]] = {}
        self.log: list[tuple[str, ...]] = []
        self.generation = 0

    def have(self, program: str) -> bool:
        return program in self.programs

    def run(self, command: Sequence[str], text: str) -> str:
        self.log.append(tuple(command))
        program, *rest = command
        if program == "nft":
            return self._nft(rest, text)
        tool, _, action = program.rpartition("-")
        return self._restore(tool, text) if action == "restore" else self._save(tool)

    def _nft(self, rest: list[str], text: str) -> str:
        if "nft" in self.refuse:
            raise MeshdError(f"nft failed: {self.refuse['nft']}")
        if rest[-2:] == ["list", "chains"]:
            return json.dumps({"nftables": [{"chain": chain} for chain in self.foreign]})
        if "chain" in rest:
            rules = [{"rule": {"expr": rule}} for rule in self.foreign_rules.get(rest[-1], [])]
            return json.dumps({"nftables": [{"metainfo": {}}, {"chain": {}}, *rules]})
        if "list" in rest:
            if rest[-1] not in self.tables:
                raise MeshdError("nft failed: No such file or directory")
            return json.dumps(self.tables[rest[-1]])
        for word, complaint in self.refuse.items():
            if word in text:
                raise MeshdError(f"nft failed: {complaint}")
        self.generation += 1
        for command in json.loads(text)["nftables"]:
            ((verb, what),) = command.items()
            ((kind, body),) = what.items()
            self._change(verb, kind, body)
        return ""

    def _change(self, verb: str, kind: str, body: dict[str, Any]) -> None:
        if kind == "table":
            if verb == "add":
                self.tables.setdefault(body["name"], {})
            else:
                del self.tables[body["name"]]
            return
        chains = self.tables[body["table"]]
        if kind == "rule":
            chains[body["chain"]]["rules"].append([self.generation, body["expr"]])
        elif verb == "add":
            chains.setdefault(body["name"], {"hook": body.get("hook"), "rules": []})
        elif verb == "flush":
            chains[body["name"]]["rules"] = []
        else:
            del chains[body["name"]]

    def of(self, tool: str) -> dict[str, dict[str, list[str]]]:
        return self.kept.setdefault(tool, {t: {c: [] for c in chains} for t, chains in BUILT_IN.items()})

    def _save(self, tool: str) -> str:
        lines = []
        for table, chains in self.of(tool).items():
            lines.append(f"*{table}")
            lines += [
                f":{name} {self.policy.get(name, 'ACCEPT') if name in BUILT_IN[table] else '-'} [7:9]"
                for name in chains
            ]
            lines += [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]
            lines.append("COMMIT")
        return "\n".join(lines)

    def _restore(self, tool: str, text: str) -> str:
        first, *lines, last = text.splitlines()
        assert last == "COMMIT"
        for word, complaint in self.refuse.items():
            if word == f"{tool} {first}":
                raise MeshdError(f"{tool}-restore failed: {complaint}")
        chains = {name: list(rules) for name, rules in self.of(tool)[first[1:]].items()}
        for line in lines:
            verb, name, *rest = line.split()
            if verb.startswith(":"):
                chains[verb[1:]] = []
            elif verb == "-A":
                chains[name].append(" ".join(rest))
            elif verb == "-I":
                assert rest[0] == "1"
                chains[name].insert(0, " ".join(rest[1:]))
            elif verb == "-D":
                chains[name].remove(" ".join(rest))
            elif verb == "-F":
                chains[name] = []
            elif verb == "-X":
                assert not any(f"-j {name}" in rule for rules in chains.values() for rule in rules)
                del chains[name]
        self.of(tool)[first[1:]] = chains
        return ""
