"""The Linux router against a real kernel, in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns
NAMESPACE = "mt-router"


@pytest.fixture
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "-n", NAMESPACE, "tuntap", "add", "mesh0", "mode", "tun"], check=True)
        yield NAMESPACE
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def inside(code: str, *arguments: str) -> str:
    """Run Python code in the namespace with the router at hand."""
    prelude = (
        "import sys\nfrom ipaddress import ip_network as net\nfrom pathlib import Path\n"
        "from meshd.core.routes import RouterConfig\nfrom meshd.host.linux.journal import Journal\n"
        "from meshd.host.linux.router import LinuxRouter, clean_up\n"
        "from meshd.host.linux.rtnetlink import RtNetlink\nnetlink = RtNetlink()\n"
        "journal = Journal(Path(sys.argv[1]))\nrouter = LinuxRouter(netlink, 'mesh0', journal)\n"
        "own = (net('100.64.0.1/32'), net('fd7a:115c:a1e0::1/128'))\n"
    )
    done = subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", prelude + code, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", "-n", NAMESPACE, *arguments], capture_output=True, text=True, check=False).stdout


def test_router_applies_and_takes_back(namespace: str, tmp_path: Path) -> None:
    """DM-04; RT-12."""
    inside(
        "router.apply(RouterConfig(own, frozenset({net('100.64.0.2/32'), net('10.0.0.0/8')}),"
        " frozenset({net('10.1.0.0/16')})))",
        str(tmp_path / "journal"),
    )
    assert json.loads(ip("-j", "-d", "link", "show", "mesh0"))[0]["gso_max_size"] == 60224
    addresses = json.loads(ip("-j", "addr", "show", "mesh0"))[0]
    assert addresses["mtu"] == 1280
    assert {a["local"] for a in addresses["addr_info"]} >= {"100.64.0.1", "fd7a:115c:a1e0::1"}
    routes = ip("route", "show", "table", "52")
    assert "100.64.0.2 dev mesh0" in routes
    assert "throw 10.1.0.0/16" in routes
    for family in ("-4", "-6"):
        assert [r["priority"] for r in json.loads(ip("-j", family, "rule")) if 5200 <= r["priority"] < 5300] == [
            5210,
            5230,
            5250,
            5270,
        ]
    # The process is gone without having closed: cleaning up is another one's work.
    inside("clean_up(netlink, journal)", str(tmp_path / "journal"))
    assert "52" not in {str(r["priority"])[:2] for r in json.loads(ip("-j", "rule"))}
    assert "throw" not in ip("route", "show", "table", "52")
    assert not (tmp_path / "journal").exists()


def test_router_killed_on_an_interface_that_stays_leaves_nothing(namespace: str, tmp_path: Path) -> None:
    """DM-04: made by ``ip tuntap add``, it keeps addresses and routes, and the next node had them besides its own."""
    ip("addr", "add", "192.0.2.1/24", "dev", "mesh0")
    inside(
        "router.apply(RouterConfig(own, frozenset({net('100.64.0.2/32'), net('fd7a:115c:a1e0::2/128')}),"
        " frozenset({net('2001:db8::/32')})))",
        str(tmp_path / "journal"),
    )
    inside("clean_up(netlink, journal)", str(tmp_path / "journal"))
    assert ip("route", "show", "table", "52") + ip("-6", "route", "show", "table", "52") == ""
    addresses = json.loads(ip("-j", "addr", "show", "mesh0"))[0]["addr_info"]
    assert [a["local"] for a in addresses if a["scope"] == "global"] == ["192.0.2.1"]


def test_router_changes_only_what_differs(namespace: str, tmp_path: Path) -> None:
    out = inside(
        "sent = []\noriginal = netlink.execute\n"
        "def spy(requests):\n    todo = list(requests)\n    sent.extend(todo)\n    return original(todo)\n"
        "netlink.execute = spy\n"
        "router.apply(RouterConfig(own, frozenset({net('100.64.0.2/32')})))\nfirst = len(sent)\n"
        "router.apply(RouterConfig(own, frozenset({net('100.64.0.2/32'), net('100.64.0.3/32')})))\n"
        "print(len(sent) - first)\nrouter.close()",
        str(tmp_path / "journal"),
    )
    assert out.strip() == "1"
    assert ip("route", "show", "table", "52") == ""


def test_router_leaves_foreign_rules_and_tables_alone(namespace: str, tmp_path: Path) -> None:
    ip("rule", "add", "priority", "5200", "lookup", "77")
    ip("route", "add", "unreachable", "10.9.0.0/16", "table", "77")
    inside(
        "router.apply(RouterConfig(own, frozenset({net('100.64.0.2/32')})))\nrouter.close()", str(tmp_path / "journal")
    )
    assert "5200:" in ip("rule")
    assert "10.9.0.0/16" in ip("route", "show", "table", "77")


def test_router_restores_what_somebody_deleted(namespace: str, tmp_path: Path) -> None:
    """RT-14."""
    inside(
        "routes, throws = frozenset({net('10.0.0.0/8'), net('::/0')}), frozenset({net('10.1.0.0/16')})\n"
        "router.apply(RouterConfig(own, routes, throws))\n"
        "import subprocess\nassert router.restore() == 0\n"
        "for line in ('rule del priority 5270', 'route flush table 52', '-6 route flush table 52',"
        " 'addr flush dev mesh0', 'link set mesh0 down', 'link set mesh0 up'):\n"
        "    subprocess.run(['ip', *line.split()], check=True)\n"
        "assert router.restore() == 1 + 3 + 2\nassert router.restore() == 0",
        str(tmp_path / "journal"),
    )
    assert "5270:" in ip("rule")
    assert "throw 10.1.0.0/16" in ip("route", "show", "table", "52")
    assert "default" in ip("-6", "route", "show", "table", "52")
    assert "100.64.0.1/32" in ip("addr", "show", "mesh0")


IPV6_SWITCHED = (
    "import subprocess\nfrom meshd.core.routeplan import RouteChange\n"
    "def ipv6(on, scope='mesh0'):\n"
    "    Path(f'/proc/sys/net/ipv6/conf/{scope}/disable_ipv6').write_text('0' if on else '1')\n"
    "def held():\n"
    "    return ({str(a.local) for a in netlink.addresses() if a.interface == router._index},"
    " {str(r.prefix[0]) for r in netlink.routes(52)}, [len(netlink.rules(f)) for f in (2, 10)])\n"
    "config = RouterConfig(own, frozenset({net('100.64.0.2/32'), net('fd7a:115c:a1e0::2/128')}))\n"
)


@pytest.mark.parametrize("scope", ["default", "all"])
def test_router_without_ipv6_on_the_interface_still_brings_ipv4(namespace: str, tmp_path: Path, scope: str) -> None:
    """RT-12."""
    setting = ("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
    subprocess.run(["ip", "netns", "exec", NAMESPACE, *setting], check=True)
    ip("link", "del", "mesh0")
    ip("tuntap", "add", "mesh0", "mode", "tun")
    inside(
        IPV6_SWITCHED + "router.apply(config)\n"
        "assert held() == ({'100.64.0.1'}, {'100.64.0.2'}, [7, 2]), held()\n"
        "assert router.restore() == 0\n"
        "more = (net('100.64.0.3/32'), net('fd7a:115c:a1e0::3/128'))\nrouter.change(RouteChange(more, (), ()))\n"
        "assert held()[1] == {'100.64.0.2', '100.64.0.3'}\n"
        "router.change(RouteChange((), (), more))\n"
        "ipv6(True, 'all')\nipv6(True)\nrouter.apply(config)\n"
        "assert {'100.64.0.1', 'fd7a:115c:a1e0::1'} <= held()[0]\n"
        "assert held()[1:] == ({'100.64.0.2', 'fd7a:115c:a1e0::2'}, [7, 6]), held()\n"
        "router.close()\nassert held()[1:] == (set(), [3, 2])",
        str(tmp_path / "journal"),
    )


def test_router_follows_ipv6_that_is_switched_while_it_runs(namespace: str, tmp_path: Path) -> None:
    """RT-14: what IPv4 lost is restored even so, and IPv6 comes back with it."""
    inside(
        IPV6_SWITCHED + "router.apply(config)\nipv6(False)\n"
        "subprocess.run('ip route flush table 52'.split(), check=True)\n"
        "assert router.restore() == 1\nrouter.apply(config)\n"
        "assert held()[:2] == ({'100.64.0.1'}, {'100.64.0.2'})\n"
        "ipv6(True)\nassert router.restore() == 2\nassert 'fd7a:115c:a1e0::2' in held()[1]\n"
        "ipv6(False)\nrouter.change(RouteChange((net('fd7a:115c:a1e0::3/128'),), (), ()))\n"
        "ipv6(True)\nrouter.change(RouteChange((net('100.64.0.3/32'), net('fd7a:115c:a1e0::4/128')), (), ()))\n"
        "assert held()[1] == {'100.64.0.2', '100.64.0.3', *(f'fd7a:115c:a1e0::{n}' for n in (2, 3, 4))}\n"
        "assert 'fd7a:115c:a1e0::1' in held()[0]\n"
        "ipv6(False)\nrouter.close()\nassert held()[1] == set()",
        str(tmp_path / "journal"),
    )


def test_router_new_address_costs_no_route(namespace: str, tmp_path: Path) -> None:
    """RT-14: with its last IPv4 address an interface loses all IPv4 routes."""
    code = (
        IPV6_SWITCHED + "import time\nrouter.apply(config)\n"
        "words = 'timeout 0.6 ip -4 monitor route'.split()\n"
        "events = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)\n"
        "time.sleep(0.3)\n"
        "router.apply(RouterConfig((net('100.64.0.9/32'), own[1]), config.routes))\n"
        "assert held()[1] == {'100.64.0.2', 'fd7a:115c:a1e0::2'}, held()\nassert router.restore() == 0\n"
        "print(events.stdout.read())\n"
        "router.apply(RouterConfig(own[1:], config.routes))\nassert '100.64.0.2' in held()[1]"
    )
    assert "100.64.0.2" not in inside(code, str(tmp_path / "journal"))


MONITORED = IPV6_SWITCHED + (
    "import asyncio, socket\nfrom meshd.host.linux.monitor import NetworkMonitor\n"
    "from meshd.io.interfaces import addresses_out\n"
    "def sh(line, text=''):\n    subprocess.run(line.split(), input=text, text=True, check=True)\n"
    "async def seen(act, then=None, wait=0.5):\n"
    "    calls = []\n"
    "    says = lambda what: lambda: calls.append(what)\n"
    "    monitor = NetworkMonitor(asyncio.get_running_loop(), router._index, 'mesh0', 52, says('changed'),"
    " router.holds, says('lost'), says('gone'), calls.append, says('settings'), netlink.addresses, addresses_out,"
    " netlink.port)\n"
    "    act(monitor)\n    await asyncio.sleep(wait)\n    found = list(calls)\n"
    "    if then is not None:\n        then()\n        await asyncio.sleep(0.5)\n        found = calls[len(found):]\n"
    "    monitor.close()\n    return found\n"
    "routes = ''.join(f'route add 10.50.{n}.0/24 dev lo\\n' for n in range(40))\n"
    "def overflow(monitor, last):\n"
    "    monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)\n"
    "    sh('ip -batch -', routes + last + '\\n' + routes.replace('add', 'del'))\n"
    "router.apply(config)\n"
)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_monitor_that_lost_events_looks_at_everything_again(namespace: str, tmp_path: Path, loop: str) -> None:
    """RT-14: whatever was among them. libuv hears no more of a socket that had an error: the monitor was deaf from then
    on."""
    inside(
        MONITORED + f"import {loop} as loop\nasyncio.run = loop.run\n"
        "import functools\nseen = functools.partial(seen, wait=0.9)\n"
        "def gone():\n    sh('ip rule del priority 5270')\n"
        "for _ in range(2):\n"
        "    found = asyncio.run(seen(lambda m: overflow(m, 'route flush table 77'), gone))\n"
        "    assert found == ['lost'], found\n    assert router.restore() == 1\n"
        "assert asyncio.run(seen(lambda m: sh('ip rule del priority 5270'))) == ['lost']\nrouter.restore()\n"
        "found = asyncio.run(seen(lambda m: overflow(m, 'rule del priority 5270')))\n"
        "assert sorted(found) == ['changed', 'lost', 'settings'], found\nassert router.restore() == 1\n"
        "found = asyncio.run(seen(lambda m: sh('ip link set mesh0 name mesh9')))\n"
        "assert found == ['mesh9'], found\nassert asyncio.run(seen(lambda m: None)) == ['mesh9']\n"
        "found = asyncio.run(seen(lambda m: overflow(m, 'link set mesh9 name mesh8')))\n"
        "assert found.count('mesh8') == 1, found\nsh('ip link set mesh8 name mesh0')\n"
        "found = asyncio.run(seen(lambda m: overflow(m, 'link del mesh0')))\nassert 'gone' in found, found",
        str(tmp_path / "journal"),
    )


def test_monitor_notices_ways_out_addresses_and_links_in_use_alone(namespace: str, tmp_path: Path) -> None:
    """SM-06: some hosts have changes of other routes and links all the time."""
    steps = [
        (["link set lo up", "route add 10.50.1.0/24 dev lo", "route del 10.50.1.0/24"], []),
        (["route add 10.0.0.0/9 dev lo"], []),
        *(([f"route {do} {to} dev lo"], ["changed"]) for to in ("default", "128.0.0.0/1") for do in ("add", "del")),
        *(([f"-6 route {do} 2000::/3 dev lo"], ["changed"]) for do in ("add", "del")),
        (["link add c0 type veth peer name c1", "link set c0 up", "link set c1 up", "link del c0"], []),
        (["link add e0 type veth peer name e1", "link set e1 up", "link set e0 up"], []),
        (["addr add 10.60.0.1/24 dev e0"], ["changed"]),
        (["-6 addr add 2001:db8:70::1/64 dev e0"], []),  # tentative: half a second more, and it could be used
        (["-6 addr add 2001:db8:70::2/64 dev e0 nodad"], ["changed"]),
        (["link set e1 down"], ["changed"]),
        (["link set e1 up"], ["changed"]),
        (["link del e0"], ["changed"]),
    ]
    inside(
        MONITORED + f"for lines, wanted in {steps!r}:\n"
        "    found = asyncio.run(seen(lambda _: [sh('ip ' + line) for line in lines]))\n"
        "    assert found == wanted, (lines, found)\n"
        "def failing(monitor):\n    def no():\n        raise OSError(16, 'busy')\n    monitor._addresses = no\n"
        "    monitor._note_change()\n"
        "assert asyncio.run(seen(failing)) == ['changed']\n"
        "def strict(name):\n    Path(f'/proc/sys/net/ipv4/conf/{name}/rp_filter').write_text('1')\n"
        "sh('ip link add f0 type veth peer name f1')\nsh('ip addr add 10.80.0.1/24 dev f1')\n"
        "for name, wanted in (('f0', []), ('f1', ['settings']), ('all', ['settings'])):\n"
        "    found = asyncio.run(seen(lambda _: strict(name)))\n"
        "    assert found == wanted, (name, found)",
        str(tmp_path / "journal"),
    )


def test_monitor_hears_nothing_of_the_routes_of_our_own_router(namespace: str, tmp_path: Path) -> None:
    """SM-06: those of ten thousand peers were more at once than its socket holds, and what was lost had us look at all
    routes again and find relays and peers anew, as if the host had another network."""
    inside(
        MONITORED + "many = frozenset(net((0x64400000 + n, 32)) for n in range(2, 6002))\n"
        "many |= {net(f'fd7a:115c:a1e0::{n:x}/128') for n in range(2, 2002)}\n"
        "def change(monitor):\n"
        "    look, monitor._look = monitor._look, lambda data: (read.append(data), look(data))\n"
        "    router.apply(RouterConfig(own, many))\n    router.apply(config)\n"
        "read = []\nfound = asyncio.run(seen(change, lambda: sh('ip route del 100.64.0.2 table 52')))\n"
        "assert found == ['lost'], found\nassert router.restore() == 1\n"
        "assert len(read) == 1, (len(read), 'that of the route that somebody else deleted')",
        str(tmp_path / "journal"),
    )


def test_monitor_notices_ipv6_that_is_switched_on_again(namespace: str, tmp_path: Path) -> None:
    """RT-14."""
    inside(
        MONITORED + "from meshd.io.tun import open_tun\ntun = open_tun('mesh0', queues=1)\nipv6(False)\n"
        "assert router.restore() == 0\nassert 'lost' in asyncio.run(seen(lambda _: ipv6(True)))\n"
        "assert router.restore() == 2",
        str(tmp_path / "journal"),
    )


def test_router_two_thousand_routes_take_a_moment_only(namespace: str, tmp_path: Path) -> None:
    inside(
        "routes = frozenset(net((0x64400000 + n, 32)) for n in range(2, 2002))\n"
        "router.apply(RouterConfig(own, routes))\nassert len(netlink.routes(52)) >= 2000\nrouter.close()\n"
        "assert netlink.routes(52) == []",
        str(tmp_path / "journal"),
    )


def test_router_rules_come_before_those_of_mwan3(namespace: str, tmp_path: Path) -> None:
    """RT-12: OpenWrt with several uplinks."""
    (tmp_path / "etc/config").mkdir(parents=True)
    code = (
        "router = LinuxRouter(netlink, 'mesh0', journal, Path(sys.argv[2]))\n"
        "router.apply(RouterConfig(own, frozenset({net('100.64.0.2/32')})))"
    )
    for installed in (False, True):
        if installed:
            (tmp_path / "etc/config/mwan3").touch()
            ip("rule", "add", "priority", "2001", "fwmark", "0x100/0x3f00", "lookup", "1")
        inside(code, str(tmp_path / "journal"), str(tmp_path))
        assert ("1370:" in ip("rule")) is installed
        assert ("5270:" in ip("rule")) is not installed
        inside("clean_up(netlink, journal)", str(tmp_path / "journal"))
        assert "lookup 52" not in ip("rule")
    assert "2001:" in ip("rule")
