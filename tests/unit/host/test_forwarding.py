"""What is said about a host that does not forward, or checks too strictly from where packets come."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from meshd.host.linux.forwarding import forwarding_problem, reverse_path_problem, strict_interfaces

LINK = "\nSee https://tailscale.com/s/ip-forwarding"
ALL_OFF = f"IP forwarding is disabled, subnet routing/exit nodes will not work.{LINK}"
V4, V6 = ["10.0.0.0/8"], ["2001:db8::/32"]
VIA = ["fd7a:115c:a1e0:b1a:0:7:a01:200/120"]


def host(root: Path, v4: str = "0", v6: str | None = "0", **interfaces: str) -> Path:
    ipv4 = root / "proc/sys/net/ipv4"
    for name in ("all", "default", "lo", *interfaces):
        (ipv4 / "conf" / name).mkdir(parents=True)
        (ipv4 / "conf" / name / "forwarding").write_text(interfaces.get(name, v4) + "\n")
    (ipv4 / "ip_forward").write_text(v4)
    if v6 is not None:
        (root / "proc/sys/net/ipv6/conf/all").mkdir(parents=True)
        (root / "proc/sys/net/ipv6/conf/all/forwarding").write_text(v6)
    return root


def problem(root: Path, *routes: str) -> str:
    return forwarding_problem([ip_network(r) for r in routes], {ip_address("192.168.1.1")}, root)


@pytest.mark.parametrize(
    ("v4", "v6", "routes", "said"),
    [
        ("0", "0", [], ""),
        ("0", "0", ["192.168.1.1/32"], ""),
        ("0", "0", ["192.168.1.2/32"], ALL_OFF),
        ("1", "1", V4 + V6, ""),
        ("1", "0", V4, ""),
        ("1", "0", VIA, ""),
        ("0", "1", VIA, ALL_OFF),
        ("0", "0", V4, ALL_OFF),
        ("0", "1", V6, ""),
        ("1", "0", V6, f"IPv6 forwarding is disabled, subnet routing/exit nodes may not work.{LINK}"),
        (
            "1",
            "0",
            V4 + V6,
            f"IPv6 forwarding is disabled.\nSubnet routes and exit nodes may not work correctly.{LINK}",
        ),
    ],
)
def test_forwarding_problem_of_the_whole_host(tmp_path: Path, v4: str, v6: str, routes: list[str], said: str) -> None:
    """RT-10."""
    assert problem(host(tmp_path, v4, v6, eth0=v4), *routes) == said


def test_forwarding_problem_names_the_interfaces_that_do_not(tmp_path: Path) -> None:
    """RT-10."""
    host(tmp_path, "0", "1", eth0="1", eth1="0", wlan0="0")
    assert problem(tmp_path, *V4) == (
        "Traffic received on eth1 won't be forwarded (net.ipv4.conf.eth1.forwarding disabled)\n"
        "Traffic received on wlan0 won't be forwarded (net.ipv4.conf.wlan0.forwarding disabled)\n"
        f"Subnet routes and exit nodes may not work correctly.{LINK}"
    )


def test_interface_that_goes_while_we_look_is_passed_over(tmp_path: Path) -> None:
    """RT-10, EX-09: a container that ended made the others' settings unknown, and answers to an exit node's users were
    not marked."""
    host(tmp_path, "0", "1", eth0="1", eth1="0")
    checks(tmp_path, veth1="0", wlan0="1")
    conf = tmp_path / "proc/sys/net/ipv4/conf"
    (conf / "all/rp_filter").write_text("0")
    assert problem(tmp_path, *V4).startswith("Traffic received on eth1 won't be forwarded")
    assert strict_interfaces(tmp_path) == ["wlan0"]


def test_forwarding_problem_of_a_host_without_ipv6(tmp_path: Path) -> None:
    """RT-10."""
    host(tmp_path, "1", None, eth0="1")
    assert problem(tmp_path, *V4) == ""
    assert problem(tmp_path, *V6).startswith("Couldn't check system's IP forwarding configuration")


def checks(root: Path, **values: str) -> Path:
    for name, value in values.items():
        folder = root / "proc/sys/net/ipv4/conf" / name
        folder.mkdir(parents=True)
        (folder / "rp_filter").write_text(value + "\n")
    return root


def test_strict_interfaces_take_the_larger_of_both_settings(tmp_path: Path) -> None:
    """EX-09."""
    (tmp_path / "a").mkdir()
    root = checks(tmp_path / "a", all="0", default="1", lo="1", eth0="1", eth1="0", eth2="2", mesh0="1")
    assert strict_interfaces(root, besides="mesh0") == ["eth0"]
    (tmp_path / "b").mkdir()
    assert strict_interfaces(checks(tmp_path / "b", all="1", eth0="0", eth1="2")) == ["eth0"]
    assert strict_interfaces(tmp_path / "nowhere") == []


def test_reverse_path_problem_says_what_to_set() -> None:
    """EX-09."""
    assert reverse_path_problem([]) == ""
    assert reverse_path_problem(["eth0"]) == (
        "Exit node misconfiguration: The following issues on your machine will likely make usage of exit nodes "
        'impossible: [interface "eth0" has strict reverse-path filtering enabled], please set rp_filter=2 instead of '
        "rp_filter=1; see https://github.com/tailscale/tailscale/issues/3310"
    )
