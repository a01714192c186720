"""Our iptables rules, as the text that ``iptables-restore --noflush`` takes.

They stand in chains of our own, reached by one jump at the top of each built-in chain. Used where nftables is
missing, or where iptables rules drop what is not accepted by iptables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshd.base.addr import IPPrefix
from meshd.base.ranges import CGNAT, CHROMEOS_VM
from meshd.core.firewall import FirewallConfig

MARK, BYPASS, MASK = "0x40000/0xff0000", "0x80000/0xff0000", "0xff0000"
TABLES = ("filter", "nat", "mangle")
# Of each chain: its table and the built-in chain that leads to it.
_PLACES = {
    "in": ("filter", "INPUT"),
    "fwd": ("filter", "FORWARD"),
    "post": ("nat", "POSTROUTING"),
    "pre": ("mangle", "PREROUTING"),
    "out": ("mangle", "OUTPUT"),
}
_DROPS = re.compile(
    r':(INPUT|FORWARD) DROP\b|-A (INPUT|FORWARD)( -m comment --comment ("([^"\\]|\\.)*"|\S+))?'
    r" -j (DROP|REJECT)( --reject-with \S+)?$"
)
HOOKS = frozenset(hook for _, hook in _PLACES.values())
Chains = dict[str, list[str]]


def chain_name(role: str, interface: str) -> str:
    """The chain of the node whose tunnel interface this is; at most 26 bytes, the kernel takes 28."""
    return f"meshd-{role}-" + "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in interface)


def places(interface: str) -> dict[str, tuple[str, str]]:
    """Of each of our chains: its table and the built-in chain that leads to it."""
    return {chain_name(role, interface): place for role, place in _PLACES.items()}


def chains(
    config: FirewallConfig,
    interface: str,
    ports: Iterable[int],
    version: int,
    exempt: Iterable[IPPrefix],
    *,
    masquerade: bool,
) -> Chains:
    """The rules of each chain for one IP version. ``exempt`` are networks of the host in 100.64.0.0/10: they are
    never spoofed, nor is what belongs to connections that the host began."""
    inside, outside, leaving = f'-i "{interface}"', f'! -i "{interface}"', f'-o "{interface}"'
    first = [f"{inside} -j ACCEPT"]
    first += [f"-p udp -m udp --dport {port} -j ACCEPT" for port in sorted(ports)]
    first += [f"-i lo -s {ip} -j ACCEPT" for ip in config.own if ip.version == version]
    if version == 4 and config.drop_spoofed:
        first += [f"{outside} -s {prefix} -j RETURN" for prefix in (CHROMEOS_VM, *exempt)]
        first.append(f"{outside} -s {CGNAT} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN")
        first.append(f"{outside} -s {CGNAT} -j DROP")
    forward = [f"{inside} -j MARK --set-mark {MARK}", f"-m mark --mark {MARK} -j ACCEPT"]
    if version == 4:
        forward.append(f"{leaving} -s {CGNAT} -j DROP")
    if config.stateful:
        forward.append(f"{leaving} -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP")
    forward.append(f"{leaving} -j ACCEPT")
    found = {"in": first, "fwd": forward}
    if masquerade:
        found["post"] = [f"-m mark --mark {MARK} -j MASQUERADE"]
    if config.exit_node:
        found["pre"] = [f"-m connmark --mark {BYPASS} -j CONNMARK --restore-mark --nfmask {MASK} --ctmask {MASK}"]
        found["out"] = [f"-m mark --mark {BYPASS} -j CONNMARK --save-mark --nfmask {MASK} --ctmask {MASK}"]
    return {chain_name(role, interface): rules for role, rules in found.items()}


def drops_the_rest(saved: str) -> bool:
    """Whether the filter table in a text of ``iptables-save`` drops or rejects what it does not accept, by a policy or
    by a rule for all that is left over."""
    return any(_DROPS.match(line.rstrip()) for line in saved.splitlines())


def listing(saved: str, interface: str) -> dict[str, list[str]]:
    """Of each table, the lines of ``iptables-save`` that concern our chains."""
    names = set(places(interface))
    found: dict[str, list[str]] = {table: [] for table in TABLES}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table in found and not names.isdisjoint(line.lstrip(":").split()):
            found[table].append(line.split(" [")[0] if line.startswith(":") else line)
    return found


def restore_text(
    table: str, wanted: Chains, present: list[str], interface: str, *, hooked: bool, unhook: bool = False
) -> str:
    """One transaction that brings our chains of a table from ``present`` (see ``listing``) to ``wanted``; "" when
    there is nothing to do. Not ``hooked`` chains get no jump; ``unhook`` takes away the one that we made."""
    here = {name: hook for name, (of, hook) in places(interface).items() if of == table}
    existing = {line.split()[0][1:] for line in present if line.startswith(":")} & set(here)
    jumps = [line for line in present if line.startswith("-A ") and line.split()[1] not in here]
    lines = [f":{name} - [0:0]" for name in here if name in wanted]  # makes it, or empties it
    lines += [f"-A {name} {rule}" for name in here for rule in wanted.get(name, [])]
    for name, hook in here.items():
        jump = f"-A {hook} -j {name}"
        if name in wanted and hooked and jump not in jumps:
            lines.append(f"-I {hook} 1 -j {name}")
        elif name in wanted and not hooked and unhook and jump in jumps:
            lines.append(f"-D {hook} -j {name}")
    gone = [name for name in here if name in existing and name not in wanted]
    lines += ["-D " + line.removeprefix("-A ") for line in jumps if line.split()[-1] in gone]
    lines += [f"-F {name}" for name in gone] + [f"-X {name}" for name in gone]
    return "\n".join([f"*{table}", *lines, "COMMIT", ""]) if lines else ""
