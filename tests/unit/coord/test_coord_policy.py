"""Policy files: what is refused and where, and what rules come out."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError
from meshd.coord import store
from meshd.coord.access import AllowAll
from meshd.coord.policy import compile as compiler
from meshd.coord.policy.compile import CompiledPolicy, compile_policy, internet
from meshd.coord.policy.document import parse_policy, prefix_of
from meshd.coord.policy.ports import parse_ports
from meshd.coord.policysource import PolicySource
from meshd.wire.control import Hostinfo
from meshd.wire.hujson import HujsonError, parse
from tests.unit.coord.policyworld import policy_network

NET, EXIT = "10.1.0.0/16", ("0.0.0.0/0", "::/0")


SSH = '{"ssh": [{"action": %s, "src": [%s], "dst": [%s], "users": [%s]}]}'


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "1:1", "value is missing"),
        ('{"acls": [}', "1:11", "value is missing"),
        ('{\n  "acls": 5\n}', "2:11", "list"),
        ('{"ipsets": []}', "1:12", "not supported"),
        ('{"x": -1e999}', "1:7", "too large"),
        ('{"acls": [{"action": "drop", "src": ["*"], "dst": ["*:*"]}]}', "1:22", "accept"),
        ('{"acls": [\n {"action": "accept", "src": ["group:x"], "dst": ["*:*"]}]}', "2:31", "group:x"),
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["tag:web:80"]}]}', "1:54", "tag:web"),
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["alice"]}]}', "1:54", "no ports"),
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["alice:99999"]}]}', "1:54", "not ports"),
        ('{"acls": [{"action": "accept", "src": ["10.0.0.1/8"], "dst": ["*:*"]}]}', "1:40", "host bits"),
        ('{"acls": [{"src": ["*"], "dst": ["*:*"]}]}', "1:11", "'action' is missing"),
        ('{"groups": {"eng": []}}', "1:20", "group:"),
        ('{"hosts": {"a": "10.0.0.300"}}', "1:17", "not an address"),
        ('{"tagOwners": {"web": []}}', "1:23", "tag"),
        ('{"tagOwners": {"tag:web": ["group:x"]}}', "1:28", "group:x"),
        ('{"grants": [{"src": ["*"], "dst": ["*"]}]}', "1:13", "'ip' or 'app'"),
        ('{"tagOwners": {"tag:web": ["*"]}}', "1:28", "not supported"),
        ('{"a": 1, "a": 2}', "1:10", "twice"),
        ("{} x", "1:4", "after the end"),
        ("/* x", "1:1", "comment"),
        ("[" * 100, "1:66", "nested"),
        ('{"acls": [], "autoApprovers": {"routes": {"x": []}}}', "1:48", "not a prefix"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "app": {"a": [{"n": 18446744073709551616}]}}]}', "1:62", "number"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "app": {"a": [1e999]}}]}', "1:56", "number"),
        ('{"acls": [{"action": "accept", "proto": "icmp", "src": ["*"], "dst": ["*:22"]}]}', "1:71", "ports"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["gre:22"]}]}', "1:49", "ports"),
        ('{"nodeAttrs": [{"attr": ["a"]}]}', "1:16", "'target' is missing"),
        ('{"nodeAttrs": [{"target": ["tag:x"], "attr": ["a"]}]}', "1:28", "'tag:x' is not defined"),
        ('{"nodeAttrs": [{"target": ["autogroup:self"], "attr": ["a"]}]}', "1:28", "not supported"),
        ('{"nodeAttrs": [{"target": ["*"], "attr": ["funnel"]}]}', "1:43", "funnel"),
        ('{"nodeAttrs": [{"target": ["*"], "attr": [""]}]}', "1:43", "text"),
        ('{"nodeAttrs": [{"target": ["*"], "ipPool": []}]}', "1:44", "'ipPool' is not supported"),
        ('{"randomizeClientPort": 1}', "1:25", "true or false"),
        ('{"tests": [{"accept": ["alice:22"]}]}', "1:12", "'src' is missing"),
        (SSH % ('"check"', '"a"', '"a"', '"root"'), "1:21", "check is not supported"),
        (SSH % ('"drop"', '"a"', '"a"', '"root"'), "1:21", "only action"),
        (SSH % ('"accept"', '"*"', '"a"', '"root"'), "1:39", "'*' cannot stand here"),
        (SSH % ('"accept"', '"10.0.0.1"', '"a"', '"root"'), "1:39", "cannot stand here"),
        (SSH % ('"accept"', '"a"', '"*"', '"root"'), "1:53", "'*' cannot stand here"),
        (SSH % ('"accept"', '"a"', '"b"', '"root"'), "1:52", "only b can log in"),
        (SSH % ('"accept"', '"autogroup:tagged"', '"autogroup:self"', '"root"'), "1:67", "a source with a tag"),
        (SSH % ('"accept"', '"autogroup:tagged"', '"autogroup:member"', '"root"'), "1:67", "a source with a tag"),
        (SSH % ('"accept"', '"autogroup:self"', '"autogroup:self"', '"root"'), "1:39", "not supported"),
        (SSH % ('"accept"', '"a"', '"autogroup:internet"', '"root"'), "1:53", "not supported"),
        (SSH % ('"accept"', '"a"', '"a"', ""), "1:68", "needs a user"),
        (SSH % ('"accept"', '"a"', '"a"', '"*"'), "1:69", "'*' is not supported"),
        (SSH % ('"accept"', '"a"', '"a"', '"localpart:*@x"'), "1:69", "not supported"),
        (SSH % ('"accept"', '"a"', '"a"', '"-oProxyCommand"'), "1:69", "not supported"),
        ('{"ssh": [{"action": "accept", "src": [], "dst": []}]}', "1:10", "'users' is missing"),
        ('{"ssh": [{"action": "accept", "src": [], "dst": [], "users": ["a"], "acceptEnv": [""]}]}', "1:83", "text"),
        (
            '{"groups": {"group:a": []}, "ssh": [{"action": "accept", "src": ["group:a"], "dst": ["group:a"], '
            '"users": ["root"]}]}',
            "1:86",
            "cannot be a target",
        ),
        ('{"tests": [{"src": "alice", "accept": ["alice"]}]}', "1:40", "no ports"),
        ('{"tests": [{"src": "alice", "deny": ["autogroup:self:22"]}]}', "1:38", "cannot be tested"),
        ('{"tests": [{"src": "alice", "proto": "icmp", "deny": ["bob:22"]}]}', "1:55", "ports"),
        ('{"tests": [{"src": ["alice"], "deny": ["bob:22"]}]}', "1:20", "text"),
        ('{"tests": [{"src": "alice", "allow": []}]}', "1:38", "'allow' is not supported"),
    ],
)
def test_policy_bad_text_is_refused_with_line_and_column(text, place, words):
    with pytest.raises(MeshdError) as caught:
        parse_policy(text, "file")
    assert caught.value.message.startswith(f"file:{place}: ")
    assert words in caught.value.message


@given(st.text(alphabet='{}[],:"/*\\ \nabc019-.eEu+tfn', max_size=40))
def test_hujson_any_text_parses_or_says_where(text):
    try:
        parse(text)
    except HujsonError as error:
        assert error.line >= 1
        assert error.column >= 1


def test_hujson_values_comments_and_commas():
    item = parse('// x\n{"a": [1, -2.5e1, "\\u00e9\\n\\ud83d\\ude00", true, null,], /* y */ "b": {},}')
    assert [entry.value for entry in item.value["a"].value] == [1, -25.0, "é\n😀", True, None]
    assert (item.line, item.value["b"].line) == (2, 2)


def test_ports_forms():
    assert parse_ports("*") == ((0, 65535),)
    assert parse_ports("80,443,8000-8999") == ((80, 80), (443, 443), (8000, 8999))
    for bad in ("", "-1", "70000", "9-1", "a", "1,,2", "²"):
        with pytest.raises(ValueError):
            parse_ports(bad)


def _access(text):
    network = policy_network()
    return compile_policy(parse_policy(text), network), {node.name: node for node in network.nodes.values()}


def _seen(access, nodes, name):
    names = {node.id: node.name for node in nodes.values()}
    return {names[node_id] for node_id in access.visible(nodes[name].id)}


def test_policy_rule_opens_only_what_it_names():
    access, nodes = _access(
        '{"groups": {"group:a": ["alice"]}, "tagOwners": {"tag:web": ["alice"]},'
        '"acls": [{"action": "accept", "proto": "tcp", "src": ["group:a"], "dst": ["tag:web:80,443"]}]}'
    )
    (rule,) = access.rules(nodes["web"])
    assert rule.src_ips == (nodes["laptop"].v4, nodes["laptop"].v6, nodes["phone"].v4, nodes["phone"].v6)
    assert rule.ip_proto == (6,)
    assert {(d.ip, d.ports.first) for d in rule.dst_ports} == {
        (address, port) for address in (nodes["web"].v4, nodes["web"].v6) for port in (80, 443)
    }
    assert access.rules(nodes["laptop"]) == []
    assert _seen(access, nodes, "web") == {"laptop", "phone"}
    assert _seen(access, nodes, "laptop") == {"web"}
    assert _seen(access, nodes, "bobs") == set()


def test_policy_rule_names_of_many_targets_only_the_node_that_gets_it():
    """Each of a thousand nodes got the addresses of all, and a machine that joined held everybody up for a second."""
    access, nodes = _access(
        '{"acls": [{"action": "accept", "src": ["autogroup:tagged"], "dst": ["alice:22", "autogroup:member:80"]}]}'
    )
    for name in ("laptop", "phone"):
        (rule,) = access.rules(nodes[name])
        assert {entry.ip for entry in rule.dst_ports} == {nodes[name].v4, nodes[name].v6}
        assert [entry.ports.first for entry in rule.dst_ports] == [22, 22, 80, 80]


def test_policy_sources_among_own_devices_are_worked_out_once_for_all_of_them(monkeypatch):
    made = []
    union = CompiledPolicy.endpoint
    monkeypatch.setattr(CompiledPolicy, "endpoint", lambda self, aliases: made.append(aliases) or union(self, aliases))
    access, nodes = _access(
        '{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:22"]}]}'
    )
    made.clear()
    for node in (nodes["laptop"], nodes["phone"]):
        assert access.rules(node)
        assert access.visible(node.id)
    assert len(made) == 1


def test_policy_empty_lets_nobody_reach_anybody():
    access, nodes = _access("{}")
    assert all(not access.rules(node) and not access.visible(node.id) for node in nodes.values())


def test_policy_subnet_goes_to_the_router_that_carries_it():
    access, nodes = _access(
        '{"hosts": {"lan": "10.1.2.0/24"}, "acls": [{"action": "accept", "src": ["alice"], "dst": ["lan:*"]}]}'
    )
    (rule,) = access.rules(nodes["router"])
    assert rule.dst_ports[0].ip == "10.1.2.0/24"
    assert _seen(access, nodes, "phone") == {"router"}
    assert not access.rules(nodes["bobs"])


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ({"src": ["alice"], "dst": ["10.1.2.0/24:443"]}, {"laptop": {NET}}),
        ({"src": ["alice"], "dst": ["bob:*"]}, {"laptop": set(), "bobs": set()}),
        ({"src": ["*"], "dst": ["*:*"]}, {"laptop": {NET, *EXIT}, "bobs": {NET, *EXIT}, "web": {NET, *EXIT}}),
        ({"src": ["bob"], "dst": ["autogroup:internet:*"]}, {"laptop": set(), "bobs": set(EXIT)}),
        ({"src": ["bob"], "dst": ["8.8.8.8:53"]}, {"laptop": set(), "bobs": set(EXIT)}),
        ({"src": ["bob"], "dst": ["0.0.0.0/0:*"]}, {"laptop": set(), "bobs": {NET, *EXIT}}),
        ({"src": ["10.1.0.0/16"], "dst": ["tag:web:80"]}, {"web": {NET}, "laptop": set()}),
        ({"src": ["*"], "dst": ["tag:web:80"]}, {"web": {NET}, "laptop": set()}),
        ({"src": ["alice"], "dst": ["lan:80"]}, {"laptop": {NET}, "bobs": set()}),
        ({"src": ["alice"], "dst": ["10.9.0.0/16:*", "2000::/3:*"]}, {"laptop": set(EXIT)}),
        ({"src": ["alice"], "dst": ["autogroup:self:*"]}, {"laptop": set()}),
    ],
)
def test_policy_route_is_shown_to_who_may_use_it(rule, shown):
    """The routes of every router that a node knew were its routes, whether it could reach anything there or not."""
    text = json.dumps(
        {"hosts": {"lan": "10.1.7.0/24"}, "tagOwners": {"tag:web": []}, "acls": [{"action": "accept", **rule}]}
    )
    access, nodes = _access(text)
    for name, routes in shown.items():
        assert set(access.routes(nodes[name], (NET, *EXIT))) == routes, name


def test_policy_route_is_known_to_who_could_take_it_over():
    access, nodes = _access('{"acls": []}')
    assert access.routes(nodes["router"], (NET, "10.2.0.0/16")) == (NET,)


def test_policy_routes_of_a_router_are_looked_at_once_for_all_who_are_shown_them(monkeypatch):
    """Each of a thousand nodes looked at each of a router's routes, and held everybody up whenever a machine joined."""
    looked = []
    users_of = CompiledPolicy._users_of
    monkeypatch.setattr(CompiledPolicy, "_users_of", lambda self, route: looked.append(route) or users_of(self, route))
    access, nodes = _access('{"acls": [{"action": "accept", "src": ["alice"], "dst": ["10.1.0.0/16:*"]}]}')
    carried = (NET, "10.2.0.0/16", *EXIT)
    shown = {name: access.routes(node, carried) for name, node in nodes.items()}
    assert shown == {"laptop": (NET,), "phone": (NET,), "web": (), "bobs": (), "router": (NET, EXIT[0])}
    assert looked == list(carried)


def test_map_routes_of_peers_follow_the_policy(run_coord):
    """A tag that lets a node reach a network brings it the route, and a policy without it takes it away."""

    async def scenario(coord):
        one, two = await coord.joined("one"), await coord.joined("two")
        routes = ("192.168.7.0/24", "192.168.8.0/24")
        two.hostinfo = Hostinfo(hostname="two", routable_ips=routes)
        await two.update()
        reader = await one.stream()
        await reader.next()
        await coord.admin("nodes.approve-routes", node="two", all=True)

        async def told(wanted):
            async with asyncio.timeout(5):
                while True:
                    for peer in (await reader.next()).peers_changed:
                        if peer.allowed_ips[2:] == peer.primary_routes == wanted:
                            return peer

        await told(routes)
        rule = '{"acls": [{"action": "accept", "src": ["default"], "dst": ["default:*"%s]}]}'
        await coord.admin("policy.set", text=rule % "")
        assert (await told(())).hostinfo.routable_ips == ()
        await coord.admin("policy.set", text=rule % ', "192.168.8.4:22"')
        assert (await told(routes[1:])).hostinfo.routable_ips == routes[1:]
        await coord.admin("policy.set", text=rule % ', "192.168.0.0/16:22"')
        assert (await told(routes)).hostinfo.routable_ips == routes

    run_coord(scenario)


def test_policy_self_means_devices_of_the_same_user():
    access, nodes = _access(
        '{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}]}'
    )
    assert _seen(access, nodes, "laptop") == {"phone"}
    assert _seen(access, nodes, "bobs") == {"router"}
    assert _seen(access, nodes, "web") == set()
    (rule,) = access.rules(nodes["phone"])
    assert nodes["laptop"].v4 in rule.src_ips
    assert nodes["bobs"].v4 not in rule.src_ips


def test_policy_internet_goes_to_exit_nodes_without_private_networks():
    access, nodes = _access('{"acls": [{"action": "accept", "src": ["alice"], "dst": ["autogroup:internet:*"]}]}')
    (rule,) = access.rules(nodes["router"])
    ips = {entry.ip for entry in rule.dst_ports}
    assert ips == set(internet())
    assert "8.0.0.0/7" in ips
    assert not ips & {"10.0.0.0/8", "100.64.0.0/10", "192.168.0.0/16"}


@pytest.mark.parametrize("address", ["0.0.0.0", "2000::"])
def test_policy_internet_holds_what_exit_nodes_ask_about_before_they_answer_dns(address):
    assert any(ip_address(address) in ip_network(prefix) for prefix in internet())


def test_policy_grant_with_app_capability():
    access, nodes = _access(
        '{"tagOwners": {"tag:web": []}, "grants": [{"src": ["alice"], "dst": ["tag:web"], "ip": ["tcp:22", "53"],'
        '"app": {"example.com/cap/x": [{"level": 3}]}}]}'
    )
    ssh, dns, app = access.rules(nodes["web"])
    assert (ssh.ip_proto, dns.ip_proto) == ((6,), ())
    assert app.cap_grant[0].cap_map == {"example.com/cap/x": ({"level": 3},)}
    assert app.cap_grant[0].dsts == nodes["web"].addresses
    assert not app.dst_ports


def test_policy_grant_with_app_capability_towards_own_devices():
    access, nodes = _access(
        '{"tagOwners": {"tag:web": []}, "grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"],'
        '"app": {"example.com/cap/x": [{"level": 3}]}}]}'
    )
    (rule,) = access.rules(nodes["phone"])
    assert rule.src_ips == (nodes["laptop"].v4, nodes["laptop"].v6, nodes["phone"].v4, nodes["phone"].v6)
    assert rule.cap_grant[0].cap_map == {"example.com/cap/x": ({"level": 3},)}
    assert rule.cap_grant[0].dsts == nodes["phone"].addresses
    assert not rule.dst_ports
    assert access.rules(nodes["web"]) == []
    assert _seen(access, nodes, "laptop") == {"phone"}
    assert _seen(access, nodes, "web") == set()


def test_policy_attributes_go_to_the_nodes_that_are_named():
    """An address or prefix names who has it, not who carries a route to it."""
    access, nodes = _access(
        """{"groups": {"group:b": ["bob"]}, "hosts": {"lap": "100.64.0.1", "net": "10.1.0.0/16"},
        "tagOwners": {"tag:web": []}, "randomizeClientPort": true,
        "nodeAttrs": [
            {"target": ["group:b"], "attr": ["b", "twice"]},
            {"target": ["lap", "net", "tag:web"], "attr": ["named"]},
            {"target": ["autogroup:member"], "app": {"cap": [{"a": 1}]}},
            {"target": ["bob"], "app": {"cap": [2]}, "attr": ["twice"]},
            {"target": ["100.64.0.0/30"], "attr": ["low"]},
            {"target": [], "attr": ["nobody"]},
            {"target": ["*"]},
        ]}"""
    )
    everywhere = {"randomize-client-port": None}
    one = {**everywhere, "cap": ({"a": 1},)}
    both = {**everywhere, "b": None, "twice": None, "cap": ({"a": 1}, 2)}
    assert access.attributes(nodes["laptop"]) == {**one, "named": None, "low": None}
    assert access.attributes(nodes["web"]) == {**everywhere, "named": None, "low": None}
    assert access.attributes(nodes["bobs"]) == {**both, "low": None}
    assert access.attributes(nodes["router"]) == both
    assert access.attributes(nodes["phone"]) == one
    assert AllowAll().attributes(nodes["phone"]) == {}


def test_policy_attributes_name_users():
    assert parse_policy('{"nodeAttrs": [{"target": ["nobody", "*", "10.0.0.1"]}]}').user_names() == {"nobody"}


def test_policy_ssh_lets_sources_log_in_where_they_may():
    access, nodes = _access(
        """{"groups": {"group:b": ["bob"]}, "tagOwners": {"tag:web": []}, "ssh": [
        {"action": "accept", "src": ["group:b"], "dst": ["tag:web"], "users": ["autogroup:nonroot", "ann"],
         "acceptEnv": ["LC_*"]},
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]},
        {"action": "accept", "src": ["alice"], "dst": ["alice", "tag:web"], "users": ["root", "deploy"]},
        {"action": "accept", "src": ["carol"], "dst": ["tag:web"], "users": ["root"]},
        ]}"""
    )

    def found(name):
        policy = access.ssh(nodes[name])
        who = {node.v4: node.name for node in nodes.values()}
        return [
            ({who[p.node_ip] for p in rule.principals if p.node_ip in who}, rule.ssh_users) for rule in policy.rules
        ]

    root, deploy = {"root": "root"}, {"root": "root", "deploy": "="}
    nonroot = {"root": "", "*": "=", "ann": "="}
    assert found("web") == [({"bobs", "router"}, nonroot), ({"laptop", "phone"}, deploy)]
    assert found("laptop") == [({"laptop", "phone"}, root), ({"laptop", "phone"}, deploy)]
    assert found("bobs") == [({"bobs", "router"}, root)]
    (first, _) = access.ssh(nodes["web"]).rules
    assert (first.accept_env, first.action.accept, first.action.reject) == (("LC_*",), True, False)
    assert access.attributes(nodes["phone"]) == {"https://tailscale.com/cap/ssh": None}
    assert access.visible(nodes["web"].id) == set(), "it opens no port"
    assert AllowAll().ssh(nodes["web"]) is None
    assert _access('{"ssh": []}')[0].attributes(nodes["phone"]) == {}


def test_policy_ssh_of_nodes_that_are_alike_is_made_once():
    """Each of a thousand nodes got a list of a thousand others of its own, whenever a machine joined."""
    access, nodes = _access(SSH % ('"accept"', '"autogroup:member"', '"autogroup:self"', '"root"'))
    policy = access.ssh(nodes["laptop"])
    assert policy.rules
    assert policy is access.ssh(nodes["phone"])
    assert policy is not access.ssh(nodes["bobs"])


def test_policy_ssh_names_users():
    text = SSH % ('"accept"', '"nobody"', '"nobody"', '"root"')
    assert parse_policy(text).user_names() == {"nobody"}


def test_map_tells_a_node_who_may_log_in_and_who_no_longer(run_coord):
    async def scenario(coord):
        one = await coord.joined("one")
        reader = await one.stream()
        assert (await reader.next()).ssh_policy.rules == ()

        async def told():
            async with asyncio.timeout(5):
                while (policy := (await reader.next()).ssh_policy) is None:
                    pass
            return policy.rules

        await coord.admin("policy.set", text=SSH % ('"accept"', '"default"', '"autogroup:self"', '"root"'))
        (rule,) = await told()
        assert rule.ssh_users == {"root": "root"}
        await coord.admin("policy.set", text='{"ssh": []}')
        assert await told() == ()

    run_coord(scenario)


def test_map_tells_peers_of_an_exit_node_that_they_may_suggest_it(run_coord):
    """Clients suggest only such exit nodes, and not those that they may not use."""

    async def scenario(coord):
        one, two = await coord.joined("one"), await coord.joined("two")
        two.hostinfo = Hostinfo(hostname="two", routable_ips=EXIT)
        await two.update()
        await coord.admin("nodes.approve-routes", node="two", all=True)
        reader = await one.stream()
        assert (await reader.next()).peers[0].cap_map == {}

        async def told(wanted):
            async with asyncio.timeout(5):
                while not any(peer.cap_map == wanted for peer in (await reader.next()).peers_changed):
                    pass

        text = """{"acls": [{"action": "accept", "src": ["default"], "dst": ["default:*", %s]}],
            "nodeAttrs": [{"target": ["default"], "attr": [%s]}]}"""
        await coord.admin("policy.set", text=text % ('"autogroup:internet:*"', '"suggest-exit-node"'))
        await told({"suggest-exit-node": None})
        await coord.admin("policy.set", text=text % ("", '"suggest-exit-node"'))
        await told({})
        await coord.admin("policy.set", text=text % ('"*:*"', '"suggest-exit-node"'))
        await told({"suggest-exit-node": None})
        await coord.admin("policy.set", text=text % ('"*:*"', ""))
        await told({})

    run_coord(scenario)


def test_map_tells_a_node_what_a_policy_says_of_it(run_coord):
    async def scenario(coord):
        one = await coord.joined("one")
        reader = await one.stream()
        assert "magicdns-aaaa" not in (await reader.next()).node.cap_map
        rule = '{"nodeAttrs": [{"target": ["default"], "attr": [%s]}]}'

        async def told():
            async with asyncio.timeout(5):
                while (node := (await reader.next()).node) is None:
                    pass
            return node.cap_map

        await coord.admin("policy.set", text=rule % '"magicdns-aaaa"')
        found = await told()
        assert found["magicdns-aaaa"] is None
        assert "https://tailscale.com/cap/file-sharing" in found
        await coord.admin("policy.set", text=rule % "")
        assert "magicdns-aaaa" not in await told()

    run_coord(scenario)


def test_policy_tag_owners_and_auto_approvers():
    policy, nodes = PolicySource(), {node.name: node for node in policy_network().nodes.values()}
    policy.set(
        '{"groups": {"group:a": ["alice"]}, "tagOwners": {"tag:web": ["group:a"], "tag:db": []},'
        '"autoApprovers": {"routes": {"10.0.0.0/8": ["bob", "tag:web"]}, "exitNode": ["alice"]}}'
    )
    assert policy.may_claim(["tag:web"], "alice")
    assert not policy.may_claim(["tag:web", "tag:db"], "alice")
    assert not policy.may_claim(["tag:web"], "bob")
    assert not policy.may_claim(["tag:none"], "alice")
    assert policy.approves("10.9.0.0/16", nodes["bobs"], "bob")
    assert policy.approves("10.9.0.0/16", nodes["web"], "alice")
    assert not policy.approves("10.9.0.0/16", nodes["laptop"], "alice")
    assert not policy.approves("11.0.0.0/16", nodes["bobs"], "bob")
    assert policy.approves("0.0.0.0/0", nodes["laptop"], "alice")
    assert not policy.approves("0.0.0.0/0", nodes["bobs"], "bob")


LAN_POLICY = """{"acls": [{"action": "accept", "src": ["*"], "dst": ["10.0.0.0/8:*"]}],
    "autoApprovers": {"routes": {"10.0.0.0/8": ["default"]}}}"""


def test_policy_routes_with_host_bits_of_one_node_do_not_stop_it(run_coord):
    """One client could keep administrators from setting a policy, and others from getting their routes."""

    async def scenario(coord):
        odd, router = await coord.machine("odd"), await coord.machine("router")
        odd.hostinfo = Hostinfo(hostname="odd", routable_ips=("10.0.0.1/8",))
        router.hostinfo = Hostinfo(hostname="router", routable_ips=("10.1.0.0/16",))
        assert not (await odd.register(coord.join_key)).error
        assert not (await router.register(coord.join_key)).error
        await coord.admin("nodes.approve-routes", node="odd", all=True)
        await coord.admin("policy.set", text=LAN_POLICY)
        routes = {node.name: node.approved_routes for node in coord.service.network.nodes.values()}
        assert routes == {"odd": (), "router": ("10.1.0.0/16",)}
        assert not (await odd.register(coord.join_key)).error

    run_coord(scenario)


def test_policy_is_applied_to_all_nodes_but_the_one_that_fails(run_coord, caplog):
    async def scenario(coord):
        for name in ("first", "second"):
            machine = await coord.machine(name)
            machine.hostinfo = Hostinfo(hostname=name, routable_ips=("10.1.0.0/16",))
            assert not (await machine.register(coord.join_key)).error
        registry = coord.service._registry
        approved = registry._approved

        def fails_for_first(node):
            return approved(node) if node.name != "first" else 1 // 0

        registry._approved = fails_for_first
        await coord.admin("policy.set", text=LAN_POLICY)
        nodes = coord.service.network.nodes.values()
        assert [node.approved_routes for node in nodes] == [(), ("10.1.0.0/16",)]
        assert [record.getMessage() for record in caplog.records].count("not_approved") == 1

    run_coord(scenario)


def test_policy_gives_no_route_to_a_node_that_is_deleted_meanwhile(run_coord):
    """Its route went to nobody until the next start."""

    async def scenario(coord):
        readers = []
        for name, route in (("first", "10.1.0.0/16"), ("gone", "10.9.0.0/16"), ("heir", "10.9.0.0/16")):
            machine = await coord.machine(name)
            machine.hostinfo = Hostinfo(hostname=name, routable_ips=(route,))
            assert not (await machine.register(coord.join_key)).error
            readers.append(await machine.stream())
            await readers[-1].next()
        registry, network = coord.service._registry, coord.service.network
        first, gone, heir = network.nodes.values()
        change = registry._change

        async def change_while_the_other_is_deleted(node, *args, **fields):
            if node is first:
                await registry.delete(gone)
            await change(node, *args, **fields)

        registry._change = change_while_the_other_is_deleted
        registry.policy.set(LAN_POLICY)
        await registry.approve_by_policy()
        assert first.approved_routes
        assert network.routes.carried(gone.id) == ()
        assert network.routes.carried(heir.id) == ("10.9.0.0/16",)

    run_coord(scenario)


def test_policy_gives_its_routes_to_a_node_that_joins_while_it_is_set(run_coord):
    """Nobody looked at that node again: its routes waited for an administrator."""

    async def scenario(coord):
        machine = await coord.machine("router")
        machine.hostinfo = Hostinfo(hostname="router", routable_ips=("10.1.0.0/16",))
        registry = coord.service._registry
        store_joined, stopped, go_on = registry._store_joined, asyncio.Event(), asyncio.Event()

        async def hold(draft, admit, *, is_new):
            await store_joined(draft, admit, is_new=is_new)
            stopped.set()
            await go_on.wait()

        registry._store_joined = hold
        joining = asyncio.create_task(machine.register(coord.join_key))
        await stopped.wait()
        await coord.admin("policy.set", text=LAN_POLICY)
        go_on.set()
        assert not (await joining).error
        (node,) = coord.service.network.nodes.values()
        assert node.approved_routes == ("10.1.0.0/16",)
        (stored,) = await coord.service._database.run(store.load_nodes)
        assert stored.approved_routes == ("10.1.0.0/16",)

    run_coord(scenario)


def test_policy_approves_what_a_node_offers_while_its_routes_are_stored(run_coord):
    async def scenario(coord):
        machine = await coord.joined("router")
        registry = coord.service._registry
        registry.policy.set(LAN_POLICY)
        (node,) = coord.service.network.nodes.values()
        machine.hostinfo = Hostinfo(hostname="router", routable_ips=("10.1.0.0/16",))
        changing = asyncio.create_task(registry.approve_routes(node, ("192.168.0.0/16",)))
        await asyncio.sleep(0)
        registry.report(node, machine.map_request())
        await changing
        (stored,) = await coord.service._database.run(store.load_nodes)
        assert node.approved_routes == stored.approved_routes == ("192.168.0.0/16", "10.1.0.0/16")

    run_coord(scenario)


def test_network_keeps_no_route_of_a_node_that_was_removed():
    network = policy_network()
    (node,) = [node for node in network.nodes.values() if node.name == "router"]
    node.online = True
    network.refresh_routes(node)
    assert network.routes.carried(node.id)
    network.remove(node)
    assert not node.online
    node.online = True
    network.refresh_routes(node)
    assert network.routes.carried(node.id) == ()


def test_policy_file_read_again_logs_whatever_goes_wrong(run_coord, caplog, tmp_path):
    path = tmp_path / "policy"
    path.write_text(LAN_POLICY)

    async def scenario(coord):
        async def fail():
            raise KeyError("odd")

        coord.service._registry.approve_by_policy = fail
        coord.service.reload_policy()
        await coord.service._reloading
        assert [record.getMessage() for record in caplog.records].count("not_approved") == 1

    run_coord(scenario, policy_file=path)


def test_policy_compiles_whatever_routes_a_node_has():
    network = policy_network()
    (node,) = [node for node in network.nodes.values() if node.name == "router"]
    node.hostinfo = Hostinfo(routable_ips=("10.0.0.1/8", "10.1.0.0/16"))
    node.approved_routes = node.hostinfo.routable_ips
    access = compile_policy(parse_policy(LAN_POLICY), network)
    assert access.rules(node)
    assert not parse_policy(LAN_POLICY).approves("10.0.0.1/8", node, "default")


def test_policy_is_not_worked_out_for_all_nodes_to_answer_for_one(run_coord, monkeypatch):
    """With some hundred nodes a new policy, or a client that tells new routes, held up everybody for seconds."""

    async def scenario(coord):
        machines = [await coord.joined(f"m{i}") for i in range(8)]
        for i, machine in enumerate(machines):
            machine.hostinfo = Hostinfo(hostname=f"m{i}", routable_ips=(f"10.{i}.0.0/16",))
            await machine.update()
        registry, compiled = coord.service._registry, 0

        def count(network):
            nonlocal compiled
            compiled += 1
            return AllowAll()

        monkeypatch.setattr(registry.policy, "access", count)
        registry.policy.set(LAN_POLICY)
        registry.network.on_change = lambda node_id, flags: None
        await registry.approve_by_policy()
        for i, machine in enumerate(machines):
            machine.hostinfo = Hostinfo(hostname=f"m{i}", routable_ips=(f"10.{i + 100}.0.0/16",))
            await machine.update()
        assert {len(node.approved_routes) for node in registry.network.nodes.values()} == {2}
        assert compiled == 0

    run_coord(scenario)


def test_policy_reads_the_prefixes_of_a_node_once_for_all_aliases(monkeypatch):
    network, reads = policy_network(), []

    def read(text):
        reads.append(text)
        return prefix_of(text)

    aliases = [f"10.{i}.0.0/16" for i in range(50)]
    acls = ",".join(f'{{"action": "accept", "src": ["*"], "dst": ["{alias}:*"]}}' for alias in aliases)
    document = parse_policy('{"acls": [' + acls + "]}")
    monkeypatch.setattr(compiler, "prefix_of", read)
    compile_policy(document, network)
    owned = [own for node in network.nodes.values() for own in (*node.addresses, *node.usable_routes)]
    assert sorted(reads) == sorted(owned + aliases)


def test_policy_stored_by_another_program_that_is_not_valid_here_is_told_at_the_start(options, running):
    async def scenario():
        async with running(options) as coord:
            await coord.service._database.run(lambda connection: store.add_policy(connection, '{"ipsets": []}', 0.0))
        with pytest.raises(MeshdError, match="stored policy:1:12: 'ipsets' is not supported") as caught:
            async with running(options):
                pass
        assert "--policy FILE" in caught.value.hint

    asyncio.run(scenario())


def test_policy_set_while_running_changes_maps_and_survives_a_restart(options, running):
    async def whole():
        async with running(options) as coord:
            first, second = await coord.joined("one"), await coord.joined("two")
            reader = await first.stream()
            assert len((await reader.next()).peers) == 1
            await coord.admin("policy.set", text='{"acls": []}')
            while True:
                message = await reader.next()
                if message.peers_removed:
                    break
            assert message.peers_removed == (2,)
            assert message.packet_filters == {"base": ()}
            with pytest.raises(MeshdError, match="1:1"):
                await coord.admin("policy.set", text="nonsense")
            del second
        async with running(options) as coord:
            again = await coord.machine(like=first)
            assert (await (await again.stream()).next()).peers == ()

    asyncio.run(whole())


@pytest.mark.parametrize(
    "name", ["*", "tag:web", "group:a", "autogroup:member", "10.0.0.1", "2001:db8::1", "10.0.0.0/8"]
)
def test_user_whom_no_policy_could_name_is_not_made(run_coord, name):
    """Such a user owned what a policy gives to a tag or group of that name."""

    async def scenario(coord):
        with pytest.raises(MeshdError, match="in a policy") as caught:
            await coord.admin("users.create", name=name)
        assert caught.value.code == "usage"
        await coord.admin("users.create", name="alice@example.com")

    run_coord(scenario)
