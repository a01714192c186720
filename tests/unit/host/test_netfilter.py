"""Which packet filter rules there are, made by which program, and that nothing of them stays."""

from __future__ import annotations

import errno
import os
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.core.firewall import NO_DIVERT, OFF, ON, FirewallConfig
from meshd.host.linux import iptables, nft
from meshd.host.linux.journal import FirewallEntry, Journal
from meshd.host.linux.netfilter import ENVIRONMENT, Netfilter, undo
from tests.unit.host.packetfilters import PacketFilters

OWN = (ip_address("100.64.0.1"), ip_address("fd7a:115c:a1e0::1"))
PLAIN = FirewallConfig(mode=ON, own=OWN, snat=True)
ROUTER = replace(PLAIN, forwards=True)
CARRIER = ip_network("100.70.0.0/16")


class World:
    def __init__(self, directory: Path, *programs: str) -> None:
        self.programs = PacketFilters(*programs)
        self.root = directory / "root"
        conf = self.root / "proc/sys/net/ipv4/conf"
        for name, strict in (("all", "0"), ("eth0", "1"), ("mesh0", "1")):
            (conf / name).mkdir(parents=True, exist_ok=True)
            (conf / name / "rp_filter").write_text(strict)
        (conf / "all/src_valid_mark").write_text("0\n")
        (conf.parent / "ip_forward").write_text("0\n")
        (self.root / "proc/net").mkdir()
        self.path = directory / "journal"
        self.journal = Journal(self.path)
        self.filter = Netfilter("mesh0", self.journal, run=self.programs.run, have=self.programs.have, root=self.root)

    def apply(self, config: FirewallConfig, *ports: int, attached: Any = ()) -> Any:
        return self.filter.apply(config, ports or (41641,), attached)

    @property
    def table(self) -> dict[str, Any]:
        return dict(self.programs.tables["meshd-mesh0"])

    def text(self, chain: str) -> str:
        return str(self.table[chain])

    def setting(self, path: str) -> str:
        return (self.root / "proc/sys/net/ipv4" / path).read_text().strip()

    def clean_up(self) -> None:
        """What another process does after this one was killed."""
        undo(Journal(self.path), self.programs.run, self.programs.have, self.root)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return World(tmp_path)


def test_nft_chains_of_a_plain_node_track_no_connections() -> None:
    """RT-12: no rule costs the host's other traffic more than a look at interface and address."""
    found = nft.chains(PLAIN, "mesh0", [41641], [], masquerade=False)
    assert set(found) == {"input", "forward"}
    assert "'ct'" not in str(found)


def test_nft_spoofed_source_is_one_that_the_tunnel_owns() -> None:
    """RT-12: providers use parts of the range too; a kernel without route look-ups spares the host's networks."""
    rules = nft.chains(PLAIN, "mesh0", [], [CARRIER], masquerade=False)["input"].rules
    drops = [str(rule) for rule in rules if rule[-1] == {"drop": None}]
    assert ["fd7a:" in drop for drop in drops] == [False, True]
    assert all("fib" in drop for drop in drops)
    rules = nft.chains(PLAIN, "mesh0", [], [CARRIER], masquerade=False, features=frozenset())["input"].rules
    spared = [i for i, rule in enumerate(rules) if "100.70.0.0" in str(rule) and rule[-1] == {"return": None}]
    (dropping,) = [i for i, rule in enumerate(rules) if rule[-1] == {"drop": None}]
    assert spared[0] < dropping


def test_cgnat_drop_rule_is_left_out_when_control_says_so() -> None:
    """RT-16."""
    config = replace(PLAIN, drop_spoofed=False)
    assert "100.64.0.0" not in str(nft.chains(config, "mesh0", [], [], masquerade=False)["input"])
    rules = iptables.chains(config, "mesh0", [], 4, [], masquerade=False)["meshd-in-mesh0"]
    assert not any(rule.endswith("DROP") for rule in rules)


def test_nft_stateful_filtering_drops_what_nobody_asked_for() -> None:
    """RT-05, RT-12."""
    rules = nft.chains(replace(ROUTER, stateful=True), "mesh0", [], [], masquerade=True)["forward"].rules
    assert [r[-1] for r in rules if "established" in str(r)] == [{"drop": None}]
    assert "established" not in str(nft.chains(ROUTER, "mesh0", [], [], masquerade=True)["forward"])


def test_iptables_chains_of_both_versions() -> None:
    """RT-12."""
    v4 = iptables.chains(replace(ROUTER, stateful=True), "mesh0", [41641], 4, [CARRIER], masquerade=True)
    assert v4["meshd-in-mesh0"] == [
        '-i "mesh0" -j ACCEPT',
        "-p udp -m udp --dport 41641 -j ACCEPT",
        "-i lo -s 100.64.0.1 -j ACCEPT",
        '! -i "mesh0" -s 100.115.92.0/23 -j RETURN',
        '! -i "mesh0" -s 100.70.0.0/16 -j RETURN',
        '! -i "mesh0" -s 100.64.0.0/10 -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN',
        '! -i "mesh0" -s 100.64.0.0/10 -j DROP',
    ]
    assert v4["meshd-fwd-mesh0"] == [
        '-i "mesh0" -j MARK --set-mark 0x40000/0xff0000',
        "-m mark --mark 0x40000/0xff0000 -j ACCEPT",
        '-o "mesh0" -s 100.64.0.0/10 -j DROP',
        '-o "mesh0" -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP',
        '-o "mesh0" -j ACCEPT',
    ]
    assert v4["meshd-post-mesh0"] == ["-m mark --mark 0x40000/0xff0000 -j MASQUERADE"]
    v6 = iptables.chains(ROUTER, "mesh0", [], 6, [], masquerade=False)
    assert set(v6) == {"meshd-in-mesh0", "meshd-fwd-mesh0"}
    assert "100." not in str(v6)


def test_netfilter_masquerades_for_routers_only(world: World) -> None:
    """RT-05: NoSNAT."""
    world.apply(PLAIN)
    assert set(world.table) == {"input", "forward"}
    world.apply(ROUTER)
    assert "masquerade" in world.text("postrouting")
    world.apply(replace(ROUTER, snat=False))
    assert "postrouting" not in world.table
    (world.root / "proc/sys/net/ipv4/ip_forward").write_text("1")
    world.apply(PLAIN)
    assert "postrouting" in world.table, "containers behind this host are reached by their published ports"


def test_netfilter_same_configuration_changes_nothing(world: World) -> None:
    world.apply(ROUTER)
    before = world.programs.generation
    assert not world.apply(ROUTER).restored
    assert world.programs.generation == before


def test_netfilter_another_port_is_opened(world: World) -> None:
    """RT-16."""
    world.apply(PLAIN, 41641)
    world.apply(PLAIN, 41700)
    assert "41700" in world.text("input")
    assert "41641" not in world.text("input")


def test_netfilter_off_removes_everything(world: World) -> None:
    """RT-12."""
    for config in (replace(ROUTER, exit_node=True), replace(ROUTER, kind="iptables", exit_node=True)):
        world.apply(config)
        assert world.path.exists()
        assert world.setting("conf/all/src_valid_mark") == "1"
        world.apply(FirewallConfig(mode=OFF))
        assert world.programs.tables == {}
        assert "meshd" not in str(world.programs.kept)
        assert world.setting("conf/all/src_valid_mark") == "0"
        assert not world.path.exists()


@pytest.mark.parametrize("kind", ["nftables", "iptables"])
def test_netfilter_of_a_killed_process_is_undone(world: World, kind: str) -> None:
    """RT-12."""
    world.apply(replace(ROUTER, kind=kind, exit_node=True))
    assert "meshd" in str(world.programs.tables) + str(world.programs.kept)
    world.clean_up()
    assert "meshd" not in str(world.programs.tables) + str(world.programs.kept)
    assert world.setting("conf/all/src_valid_mark") == "0"
    assert not world.path.exists()


def test_netfilter_setting_that_an_administrator_made_stays(world: World) -> None:
    (world.root / "proc/sys/net/ipv4/conf/all/src_valid_mark").write_text("1")
    world.apply(replace(PLAIN, exit_node=True))
    world.apply(FirewallConfig())
    assert world.setting("conf/all/src_valid_mark") == "1"


def test_netfilter_what_cannot_be_removed_stays_in_the_journal(world: World) -> None:
    world.apply(ROUTER)
    world.programs.refuse["nft"] = "Operation not permitted"
    world.clean_up()
    assert world.path.exists()
    del world.programs.refuse["nft"]
    world.clean_up()
    assert not world.path.exists()
    assert world.programs.tables == {}


def test_netfilter_answers_are_marked_while_an_exit_node_is_in_use(world: World) -> None:
    """RT-16, EX-09."""
    assert not world.apply(PLAIN).answers_marked
    assert world.apply(replace(PLAIN, exit_node=True)).answers_marked
    assert "prerouting" in world.table
    assert world.setting("conf/all/src_valid_mark") == "1"
    (world.root / "proc/sys/net/ipv4/conf/eth0/rp_filter").write_text("2")
    assert not world.apply(replace(PLAIN, exit_node=True)).answers_marked
    assert "prerouting" not in world.table, "no strict check: nothing to mark, nothing to track"
    assert world.setting("conf/all/src_valid_mark") == "0"


@pytest.mark.parametrize("kind", ["nftables", "iptables"])
def test_netfilter_rules_stand_where_kernel_settings_are_read_only(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """RT-16, EX-09: containers have /proc/sys read-only; the strict check is told of then, and nothing made anew."""
    genuine = Path.write_text

    def refused(path: Path, text: str) -> int:
        if path.name == "src_valid_mark":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return genuine(path, text)

    config = replace(PLAIN, kind=kind, exit_node=True)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", refused)
        first = world.apply(config)
        before = world.programs.generation, str(world.programs.kept)
        made = sum("-restore" in command[0] for command in world.programs.log)
        assert (first.problem, first.answers_marked, first.restored) == ("", False, False)
        assert first.mode == ("nft-forced" if kind == "nftables" else "ipt-forced")
        assert "meshd-in-mesh0" in before[1] or "input" in world.table
        assert world.apply(config) == first
    assert (world.programs.generation, str(world.programs.kept)) == before
    assert sum("-restore" in command[0] for command in world.programs.log) == made
    assert {record.message for record in caplog.records if record.levelname == "WARNING"} == {"setting_refused"}
    assert world.journal.settings == {}, "it was not we who made it what it is"
    assert world.apply(config).answers_marked


@pytest.mark.parametrize("kind", ["nftables", "iptables"])
def test_netfilter_nodivert_makes_chains_that_nothing_leads_to(world: World, kind: str) -> None:
    """RT-12."""
    world.apply(replace(ROUTER, kind=kind))
    world.apply(replace(ROUTER, kind=kind, mode=NO_DIVERT))
    if kind == "nftables":
        assert {chain["hook"] for chain in world.table.values()} == {None}
        world.programs.tables["meshd-mesh0"]["administrator's"] = {"hook": "input", "rules": ["jump input"]}
        world.apply(replace(ROUTER, kind=kind, mode=NO_DIVERT), 5)
    else:
        kept = world.programs.of("iptables")["filter"]
        assert kept["INPUT"] == []
        kept["INPUT"].append("-j meshd-in-mesh0")
        world.apply(replace(ROUTER, kind=kind, mode=NO_DIVERT), 5)
        assert kept["meshd-in-mesh0"]
        assert world.programs.of("iptables")["filter"]["INPUT"] == ["-j meshd-in-mesh0"], "the administrator's jump"


@pytest.mark.parametrize("kind", ["nftables", "iptables"])
def test_netfilter_flushed_rules_are_put_back(world: World, kind: str) -> None:
    config = replace(ROUTER, kind=kind)
    world.apply(config)
    before = str(world.programs.kept), set(world.programs.tables)
    world.programs.tables.clear()
    world.programs.kept.clear()
    assert world.apply(config).restored
    assert (str(world.programs.kept), set(world.programs.tables)) == before
    assert not world.apply(config).restored


def test_iptables_jump_that_somebody_deleted_is_put_back_on_top(world: World) -> None:
    """RT-12."""
    config = replace(PLAIN, kind="iptables")
    world.apply(config)
    world.programs.of("iptables")["filter"]["INPUT"] = ["-j docker"]
    assert world.apply(config).restored
    assert world.programs.of("iptables")["filter"]["INPUT"] == ["-j meshd-in-mesh0", "-j docker"]


def forced(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv(ENVIRONMENT, mode)


DOCKER = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}


@pytest.mark.parametrize(
    ("environment", "kind", "programs", "foreign", "mode"),
    [
        ("", "", "nft iptables-restore", [], "nft"),
        ("", "", "nft", [], "nft-noipt"),
        ("", "", "iptables-restore", [], "ipt"),
        ("", "", "nft iptables-restore", [DOCKER], "ipt-inuse"),
        ("", "", "nft iptables-restore ip6tables-restore", [{**DOCKER, "family": "ip6"}], "ipt-inuse"),
        ("", "", "nft iptables-restore", [{**DOCKER, "name": "forward"}], "nft"),  # written for nft by hand
        ("", "nftables", "nft iptables-restore", [DOCKER], "nft-forced"),
        ("", "iptables", "nft iptables-restore", [], "ipt-forced"),
        ("nftables", "iptables", "nft iptables-restore", [], "nft-forced"),
        ("iptables", "", "nft iptables-restore", [], "ipt-forced"),
        ("auto", "iptables", "nft iptables-restore", [], "nft"),
        ("", "nftables", "iptables-restore", [], "ipt"),
    ],
)
def test_netfilter_kind_follows_wishes_and_what_is_in_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    kind: str,
    programs: str,
    foreign: list[Any],
    mode: str,
) -> None:
    """RT-13."""
    monkeypatch.setenv(ENVIRONMENT, environment)
    world = World(tmp_path, *programs.split())
    world.programs.foreign = foreign
    world.programs.policy = {"FORWARD": "DROP"} if DOCKER["name"] in str(foreign) else {}
    outcome = world.apply(replace(PLAIN, kind=kind))
    assert outcome.mode == mode
    assert bool(world.programs.tables) == mode.startswith("nft")
    assert bool(outcome.problem) == (kind == "nftables" and mode == "ipt")


@pytest.mark.parametrize(
    ("rules", "mode"),
    [
        (["-p icmp -j ACCEPT", "-j REJECT --reject-with icmp-host-prohibited"], "ipt-inuse"),
        (['-m comment --comment "the rest -j ACCEPT" -j DROP'], "ipt-inuse"),
        (["-m comment --comment rest -j REJECT --reject-with icmp-port-unreachable"], "ipt-inuse"),
        (["-p tcp -j REJECT --reject-with tcp-reset", "-s 203.0.113.0/24 -j DROP", "-j LOG"], "nft"),
        (['-m comment --comment "no -j DROP" -j ACCEPT', "-j DOCKER-USER"], "nft"),
    ],
)
def test_netfilter_kind_is_that_of_a_firewall_that_ends_in_a_reject(world: World, rules: list[str], mode: str) -> None:
    """RT-13: the policy of such chains is to accept, and only iptables can put a rule before the last one."""
    world.programs.foreign = [{**DOCKER, "policy": "accept"}]
    world.programs.of("iptables")["filter"]["FORWARD"] += rules
    assert world.apply(ROUTER).mode == mode
    assert world.apply(ROUTER).mode == mode


def test_netfilter_table_that_iptables_does_not_understand_keeps_nobody_from_nft(world: World) -> None:
    """RT-13: written for nft by hand, under the names of iptables."""
    world.programs.foreign = [DOCKER]
    run = world.programs.run

    def stubborn(command: Any, text: str) -> str:
        if command[0] == "iptables-save":
            raise MeshdError("iptables-save failed: table `filter' is incompatible, use 'nft' tool.")
        return run(command, text)

    world.filter._run = stubborn
    outcome = world.apply(PLAIN)
    assert (outcome.mode, outcome.problem) == ("nft", "")


@pytest.mark.parametrize("tables", ["", "filter"])
def test_netfilter_older_iptables_for_ipv6_is_asked_only_where_it_is_in_use(tmp_path: Path, tables: str) -> None:
    """RT-13: to ask for a table makes the kernel have one."""
    world = World(tmp_path, "nft", "iptables-restore", "iptables-legacy-restore", "ip6tables-legacy-restore")
    (world.root / "proc/net/ip_tables_names").write_text("filter\n")
    (world.root / "proc/net/ip6_tables_names").write_text(tables)
    world.programs.of("iptables-legacy")["filter"]["INPUT"].append("-p tcp -j DROP")
    world.programs.of("ip6tables-legacy")["filter"]["FORWARD"].append("-j REJECT --reject-with icmp6-port-unreachable")
    assert world.apply(PLAIN).mode == ("ipt-inuse" if tables else "nft")
    asked = ("ip6tables-legacy-save", "-t", "filter") in world.programs.log
    assert asked == bool(tables)


def test_netfilter_another_kind_leaves_nothing_of_the_first(world: World) -> None:
    """RT-13."""
    world.apply(replace(ROUTER, kind="nftables"))
    world.apply(replace(ROUTER, kind="iptables"))
    assert world.programs.tables == {}
    assert "meshd-in-mesh0" in str(world.programs.kept)
    world.apply(replace(ROUTER, kind="nftables"))
    assert "meshd" not in str(world.programs.kept)
    assert "meshd-mesh0" in world.programs.tables


def test_netfilter_goes_on_with_the_older_iptables_where_it_is_in_use(tmp_path: Path) -> None:
    """RT-13: rules of one kind do not accept what those of the other drop."""
    world = World(tmp_path, "nft", "iptables-restore", "iptables-legacy-restore", "ip6tables-legacy-restore")
    (world.root / "proc/net/ip_tables_names").write_text("filter\n")
    world.programs.of("iptables-legacy")["filter"]["INPUT"].append("-p tcp -j DROP")
    assert world.apply(replace(PLAIN, kind="iptables")).mode == "ipt-forced"
    assert "meshd-in-mesh0" in world.programs.of("iptables-legacy")["filter"]
    assert "iptables" not in world.programs.kept
    world.clean_up()
    assert "meshd" not in str(world.programs.kept)


@pytest.mark.parametrize("kind", ["nftables", "iptables"])
def test_netfilter_interface_with_another_name_gets_rules_for_that_one(world: World, kind: str) -> None:
    """RT-12: rules for a name that is gone let nothing in and translate nothing."""
    world.apply(replace(ROUTER, kind=kind))
    world.filter.rename("mesh9")
    world.apply(replace(ROUTER, kind=kind))
    held = f"{world.programs.tables} {world.programs.kept}"
    assert "mesh9" in held
    assert "mesh0" not in held
    assert {entry.interface for entry in Journal(world.path).firewall} == {"mesh9"}
    world.clean_up()
    assert "meshd-" not in f"{world.programs.tables} {world.programs.kept}"


def test_netfilter_foreign_firewall_that_drops_forwarded_packets_is_named(world: World) -> None:
    world.programs.foreign = [{**DOCKER, "family": "inet", "table": "fw", "name": "through"}]
    world.programs.tables["fw"] = ["no rule for us"]
    problem = world.apply(ROUTER).problem
    assert "inet fw" in problem
    assert "mesh0" in problem
    world.programs.tables["fw"] = ["mesh0"]
    assert world.apply(ROUTER).problem == ""


_REJECT: list[Any] = [
    {"counter": {"packets": 1, "bytes": 2}},
    {"reject": {"type": "icmpx", "expr": "admin-prohibited"}},
]
_ESTABLISHED: Any = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ([[_ESTABLISHED, {"accept": None}], _REJECT], True),
        ([[{"log": None}, {"drop": None}]], True),
        ([[{"counter": None}, {"xt": {"type": "target", "name": "REJECT"}}]], True),
        ([[_ESTABLISHED, {"drop": None}], [{"jump": {"target": "x"}}], [{"xt": None}], [{"accept": None}]], False),
        ([[]], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_netfilter_foreign_chain_that_ends_in_a_reject_is_named(
    world: World, rules: list[Any], backend: str, told: bool
) -> None:
    """RT-12: firewalld's chains accept by their policy, and reject by their last rule."""
    chain = {**DOCKER, "family": "inet", "table": "firewalld", "name": "filter_FORWARD", "policy": "accept"}
    world.programs.foreign = [chain, {**chain, "name": "filter_INPUT", "hook": "input", "policy": "drop"}]
    world.programs.foreign_rules = {"filter_FORWARD": rules}
    world.programs.tables["firewalld"] = ["no rule for us"]
    problem = world.apply(replace(ROUTER, kind=backend)).problem
    assert ("chain filter_FORWARD) drops" in problem) == told
    assert ("--zone=trusted --add-interface=mesh0" in problem) == told
    world.programs.tables["firewalld"] = ["mesh0"]
    assert world.apply(replace(ROUTER, kind=backend)).problem == ""


def test_netfilter_foreign_chain_that_goes_while_it_is_looked_at_drops_nothing(world: World) -> None:
    world.programs.foreign = [{**DOCKER, "family": "inet", "table": "fw", "policy": "accept"}]
    run = world.programs.run
    world.filter._run = lambda command, text: "gone" if "chain" in command else run(command, text)
    assert world.apply(ROUTER).problem == ""


def test_netfilter_kernel_without_ipv6_translation_is_told_of_for_ipv6_routes(world: World) -> None:
    """RT-12."""
    world.programs.programs.discard("nft")
    world.programs.refuse["ip6tables *nat"] = "Table does not exist (do you need to insmod?)"
    config = replace(ROUTER, kind="iptables")
    assert world.apply(config).problem == ""
    problem = world.apply(replace(config, forwards_v6=True)).problem
    assert "cannot translate IPv6" in problem
    assert "meshd-post-mesh0" in world.programs.of("iptables")["nat"]


@pytest.mark.parametrize(("word", "lost"), [("masquerade", "translate addresses"), ("fib", "")])
def test_netfilter_nft_of_a_small_kernel_does_what_it_can(world: World, word: str, lost: str) -> None:
    world.programs.refuse[word] = "Could not process rule: No such file or directory"
    outcome = world.apply(ROUTER)
    assert outcome.mode == "nft"
    assert lost in outcome.problem
    assert "input" in world.table


@pytest.mark.parametrize(
    ("kind", "word"), [("nftables", "masquerade"), ("iptables", "iptables *nat"), ("iptables", "ip6tables *mangle")]
)
def test_netfilter_busy_host_lacks_nothing(world: World, kind: str, word: str) -> None:
    """RT-12: a program that was too slow once says nothing of the kernel."""
    config = replace(ROUTER, kind=kind, exit_node=True)
    world.programs.refuse[word] = "Command '['…']' timed out after 10 seconds"
    assert "timed out" in world.apply(config).problem
    world.programs.refuse.clear()
    outcome = world.apply(config)
    assert outcome.problem == ""
    assert outcome.answers_marked


@pytest.mark.parametrize("programs", ["nft", "nft iptables-restore"])
def test_netfilter_busy_nft_keeps_its_rules(tmp_path: Path, programs: str) -> None:
    """RT-13: they are neither removed nor made by another program instead."""
    world = World(tmp_path, *programs.split())
    world.apply(ROUTER)
    table = world.table
    world.programs.refuse["nft"] = "Command '['nft', …]' timed out after 10 seconds"
    assert "timed out" in world.apply(ROUTER).problem
    assert not world.programs.kept
    world.programs.refuse.clear()
    assert world.table == table
    assert world.apply(ROUTER).problem == ""
    assert world.journal.firewall == [FirewallEntry("nft", "mesh0")]


def test_netfilter_nft_kernel_that_can_more_by_now_does_it(world: World) -> None:
    """RT-12: a module that was loaded meanwhile is used when the rules are made anew."""
    world.programs.refuse["masquerade"] = "Could not process rule: No such file or directory"
    assert "load the kernel module" in world.apply(ROUTER).problem
    world.programs.refuse.clear()
    world.programs.tables.clear()
    assert world.apply(ROUTER).problem == ""


def test_netfilter_without_any_program_says_what_to_install(tmp_path: Path) -> None:
    world = World(tmp_path, "nothing")
    outcome = world.apply(ROUTER)
    assert outcome.mode == ""
    assert "Install nftables" in outcome.problem
    assert "--netfilter-mode=off" in outcome.problem


def test_netfilter_without_permission_says_what_to_grant(tmp_path: Path) -> None:
    world = World(tmp_path, "nft")
    world.programs.refuse["nft"] = "Operation not permitted (you must be root)"
    outcome = world.apply(ROUTER)
    assert "CAP_NET_ADMIN" in outcome.problem
    assert not world.path.exists()


def test_netfilter_interfaces_side_by_side_do_not_touch_each_other(world: World, tmp_path: Path) -> None:
    other = Netfilter(
        "mesh1", Journal(tmp_path / "j2"), run=world.programs.run, have=world.programs.have, root=world.root
    )
    world.apply(ROUTER)
    other.apply(ROUTER, [1])
    other.close()
    assert set(world.programs.tables) == {"meshd-mesh0"}
    assert nft.table_name('a"b;c') == "meshd-a_b_c"
