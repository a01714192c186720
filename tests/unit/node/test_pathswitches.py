"""Switches that forbid kinds of paths."""

from __future__ import annotations

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.node.pathswitches import PathSwitches, path_switches


def one_relay(host: str, port: int) -> RelayMap:
    node = RelayNode("999dev", 999, host, derp_port=port)
    return RelayMap({999: RelayRegion(999, "dev", host, (node,))})


@pytest.mark.parametrize(
    ("environment", "switches"),
    [
        ({}, PathSwitches()),
        ({"TS_DEBUG_ALWAYS_USE_DERP": "true"}, PathSwitches(relays_only=True)),
        ({"TS_DEBUG_NEVER_DIRECT_UDP": "1"}, PathSwitches(relays_only=True)),
        ({"TS_DEBUG_NEVER_DIRECT_UDP": "0"}, PathSwitches()),
        ({"TS_DEBUG_OMIT_LOCAL_ADDRS": "T"}, PathSwitches(omit_local=True)),
        ({"TS_DEBUG_FORCE_ALL_IPV6_ENDPOINTS": "1"}, PathSwitches(all_v6=True)),
        ({"TS_ASSUME_NETWORK_UP_FOR_TEST": "1"}, PathSwitches(network_up=True)),
        ({"TS_DISCO_PONG_IPV4_DELAY": "150ms"}, PathSwitches(pong_delay_v4_s=0.15)),
        (
            {"TS_DEBUG_PRETENDPOINT": "192.0.2.1:7,[2001:db8::1]:8"},
            PathSwitches(pretended=(AddrPort.parse("192.0.2.1:7"), AddrPort.parse("[2001:db8::1]:8"))),
        ),
        ({"TS_DEBUG_USE_DERP_ADDR": "derp.example"}, PathSwitches(relays=one_relay("derp.example", 443))),
        ({"TS_DEBUG_USE_DERP_ADDR": "derp.example:8443"}, PathSwitches(relays=one_relay("derp.example", 8443))),
        ({"TS_DEBUG_USE_DERP_ADDR": "[2001:db8::1]:8443"}, PathSwitches(relays=one_relay("2001:db8::1", 8443))),
    ],
)
def test_switches_are_read_as_booleans(environment: dict[str, str], switches: PathSwitches) -> None:
    assert path_switches(environment) == switches


@pytest.mark.parametrize("name", ["TS_DEBUG_ALWAYS_USE_DERP", "TS_DEBUG_NEVER_DIRECT_UDP", "TS_DEBUG_OMIT_LOCAL_ADDRS"])
def test_switches_refuse_other_words(name: str) -> None:
    with pytest.raises(MeshdError, match=f'invalid value "yes" for the environment variable {name}'):
        path_switches({name: "yes"})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("TS_DEBUG_PRETENDPOINT", "192.0.2.1", "addresses such as"),
        ("TS_DEBUG_PRETENDPOINT", "1.1.1.1:1,1.1.1.1:2,1.1.1.1:3,1.1.1.1:4", "no more than 3"),
        ("TS_DISCO_PONG_IPV4_DELAY", "150", "a duration such as 100ms"),
        ("TS_DISCO_PONG_IPV4_DELAY", "-1s", "a duration such as 100ms"),
        ("TS_DISCO_PONG_IPV4_DELAY", "2h", "up to a minute"),
        ("TS_DEBUG_USE_DERP_ADDR", "derp example", "host name of a relay"),
        ("TS_DEBUG_USE_DERP_ADDR", "derp.example:0", "a port from 1 to 65535"),
    ],
)
def test_switches_refuse_what_cannot_be(name: str, value: str, text: str) -> None:
    with pytest.raises(MeshdError, match=f"environment variable {name}: expected .*{text}"):
        path_switches({name: value})
