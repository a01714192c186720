"""Calls of the coordination server to this node."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError, WireError
from meshd.feature.c2n.handler import answer_call


class NodeDouble:
    """A node as data."""

    def __init__(self, **prefs: Any) -> None:
        self.known = {"Hostname": "h", "AutoUpdate": {"Check": True, "Apply": None}} | prefs
        self.logged: list[tuple[str, int]] = []
        self.edits: list[Mapping[str, Any]] = []

    def prefs(self) -> dict[str, Any]:
        return self.known

    def metrics(self) -> str:
        return "# TYPE x counter\nx 1\n"

    async def netmap(self) -> dict[str, Any] | None:
        return {"Domain": "d", "Peers": []}

    def candidate_netmap(self, message: bytes) -> dict[str, Any]:
        if b"Node" not in message:
            raise WireError("the first map message has no Node")
        return {"Domain": "candidate", "Peers": []}

    def health(self) -> dict[str, Any]:
        return {"Warnings": {}}

    def stacks(self) -> str:
        return "task a:\n"

    def posture(self, *, addresses: bool) -> dict[str, Any]:
        if self.known.get("broken"):
            raise MeshdError("cannot read the serial number", code="host")
        return {"SerialNumbers": ["S"]} | ({"IfaceHardwareAddrs": ["00:11:22:33:44:55"]} if addresses else {})

    def wake(self, macs: list[bytes]) -> dict[str, Any]:
        if self.known.get("broken"):
            raise OSError(errno.EMFILE, "Too many open files")
        return {"SentTo": ["eth0"] * len(macs), "Errors": None}

    async def log_component(self, component: str, seconds: int) -> None:
        if component != "magicsock":
            raise MeshdError(f'unknown component "{component}"', code="invalid")
        self.logged.append((component, seconds))

    async def edit_prefs(self, masked: Mapping[str, Any]) -> dict[str, Any]:
        if masked["NetfilterKind"] not in ("", "iptables", "nftables"):
            raise MeshdError("unknown kind", code="invalid")
        self.edits.append(masked)
        return {}


def ask(
    method: str, target: str, body: bytes = b"", *, node: NodeDouble | None = None, form: bool = False
) -> tuple[int, bytes]:
    head = f"{method} {target} HTTP/1.1\r\nHost: unused\r\nContent-Length: {len(body)}\r\n"
    if form:
        head += "Content-Type: application/x-www-form-urlencoded\r\n"
    answer = asyncio.run(answer_call(node or NodeDouble(), head.encode() + b"\r\n" + body))
    start, _, rest = answer.partition(b"\r\n\r\n")
    return int(start.split()[1]), rest


def test_c2n_echo_gives_the_body_back_by_any_method() -> None:
    """C2N `/echo`."""
    for method in ("GET", "POST", "PUT"):
        assert ask(method, "/echo?x=1", b"hi") == (200, b"hi")


@pytest.mark.parametrize(
    ("method", "target", "status", "body"),
    [
        ("GET", "/nothing", 400, b"unknown c2n path\n"),
        ("GET", "/ssh/usernames", 400, b"unknown c2n path\n"),
        ("GET", "/logtail/flush", 405, b"bad method\n"),
        ("PUT", "/update", 405, b"bad method\n"),
        ("DELETE", "/debug/netmap", 405, b"method not allowed\n"),
        ("POST", "/logtail/flush", 500, b"no log flusher wired up\n"),
        ("POST", "/sockstats", 500, b"no sockstatLogger\n"),
        ("GET", "/debug/logheap", 501, b"not implemented\n"),
        ("GET", "/debug/pprof/heap", 501, b"not implemented\n"),
        ("GET", "/debug/pprof/allocs", 501, b"not implemented\n"),
        ("GET", "/debug/goroutines", 200, b"task a:\n"),
        ("GET", "/debug/metrics", 200, b"# TYPE x counter\nx 1\n"),
        ("GET", "/debug/health", 200, b'{"Warnings":{}}\n'),
        ("GET", "/tls-cert-status", 400, b"no 'domain'\n"),
        ("GET", "/tls-cert-status?domain=a.ts.net", 200, b'{"Error":"no certificate","Missing":true}\n'),
        ("GET", "/appconnector/routes", 200, b'{"Domains":null}\n'),
        ("GET", "/vip-services", 200, b'{"VIPServices":null,"ServicesHash":""}\n'),
        ("POST", "/vip-services", 405, b"bad method\n"),
        ("GET", "/wol", 405, b"bad method\n"),
        ("POST", "/wol?mac=00:11", 400, b"bad 'mac' param\n"),
        ("GET", "/conn25/state", 400, b"unknown c2n path\n"),
        ("GET", "/debug/tka/log", 400, b"unknown c2n path\n"),
        ("GET", "/remoteapi/localapi/v0/status", 400, b"unknown c2n path\n"),
    ],
)
def test_c2n_status_codes_are_those_of_a_node_without_the_part(
    method: str, target: str, status: int, body: bytes
) -> None:
    """C2N `/logtail/flush`, `/sockstats`, `/debug/goroutines`, `/debug/metrics`, `/debug/logheap`, `/debug/pprof/*`,
    `/debug/health`; unknown path 400, wrong method 405.
    (c2n:hostile)."""
    assert ask(method, target) == (status, body)


def test_c2n_preferences_are_json() -> None:
    """C2N `/debug/prefs`."""
    status, body = ask("GET", "/debug/prefs")
    assert (status, json.loads(body)["Hostname"]) == (200, "h")


def test_c2n_netmap_now_and_as_it_would_be() -> None:
    """C2N `/debug/netmap`: current, candidate, fields left out."""
    assert json.loads(ask("GET", "/debug/netmap")[1]) == {"current": {"Domain": "d", "Peers": []}}
    body = json.dumps({"candidate": {"Node": {}}, "omitFields": ["Peers", "Unknown"]}).encode()
    found = json.loads(ask("POST", "/debug/netmap", body)[1])
    assert found == {"current": {"Domain": "d"}, "candidate": {"Domain": "candidate"}}
    for bad in (b"{", b"[]", b'{"omitFields":3}', b'{"candidate":{}}'):
        status, text = ask("POST", "/debug/netmap", bad)
        assert (status, text[:9]) == (400, b"failed to")


def test_c2n_component_logging() -> None:
    """C2N `/debug/component-logging`: parameters of the query or of a form; 0 seconds is off."""
    node = NodeDouble()
    assert ask("POST", "/debug/component-logging?component=magicsock&secs=60", node=node) == (200, b"{}\n")
    ask("POST", "/debug/component-logging", b"component=magicsock&secs=0", node=node, form=True)
    ask("POST", "/debug/component-logging", b"component=magicsock&secs=9999999999", node=node, form=True)
    assert node.logged == [("magicsock", 60), ("magicsock", -1), ("magicsock", 30 * 86400)]
    assert ask("GET", "/debug/component-logging?component=x") == (200, b'{"Error":"unknown component \\"x\\""}\n')


def test_c2n_update_is_refused_by_a_node_without_updater() -> None:
    """C2N `/update`, UP-02: the package manager does it."""
    said = {"Enabled": False, "Supported": False, "Started": False}
    assert json.loads(ask("GET", "/update")[1]) == said
    assert json.loads(ask("POST", "/update?force=true")[1]) == {"Err": "not enabled"} | said
    willing = NodeDouble(AutoUpdate={"Check": True, "Apply": True})
    answer = json.loads(ask("POST", "/update", node=willing)[1])
    assert answer == {"Err": "not supported", "Enabled": True, "Supported": False, "Started": False}


def test_c2n_posture_only_for_those_who_said_yes() -> None:
    """C2N `/posture/identity`."""
    assert json.loads(ask("GET", "/posture/identity")[1]) == {"PostureDisabled": True}
    willing = NodeDouble(PostureChecking=True)
    assert json.loads(ask("GET", "/posture/identity", node=willing)[1]) == {"SerialNumbers": ["S"]}
    assert "IfaceHardwareAddrs" in json.loads(ask("GET", "/posture/identity?hwaddrs=true", node=willing)[1])
    assert ask("GET", "/posture/identity", node=NodeDouble(PostureChecking=True, broken=True))[0] == 500


def test_c2n_host_at_its_limits_is_told() -> None:
    """C2N `/wol`: the server waits for an answer."""
    broken = NodeDouble(broken=True)
    assert ask("POST", "/wol?mac=00:11:22:33:44:55", node=broken) == (500, b"Too many open files\n")


def test_c2n_hosts_are_woken_by_every_address_that_is_named() -> None:
    """c2n:/wol: parameters of the query, of a form, or both."""
    answer = json.loads(ask("POST", "/wol?mac=00:11:22:33:44:55&mac=00-11-22-33-44-66")[1])
    assert answer == {"SentTo": ["eth0", "eth0"], "Errors": None}
    answer = json.loads(ask("POST", "/wol", b"mac=00:11:22:33:44:55", form=True)[1])
    assert answer["SentTo"] == ["eth0"]


def test_c2n_netfilter_kind_is_a_preference() -> None:
    """C2N `/netfilter-kind`."""
    node = NodeDouble()
    assert ask("POST", "/netfilter-kind?kind=nftables", node=node) == (204, b"")
    assert node.edits == [{"NetfilterKind": "nftables", "NetfilterKindSet": True}]
    assert ask("POST", "/netfilter-kind?kind=magic", node=node)[0] == 500


@given(st.binary(max_size=400))
def test_c2n_hostile_payload_is_answered_with_a_refusal(payload: bytes) -> None:
    """C2N: nothing a server sends ends in an exception."""
    for data in (
        payload,
        b"GET /echo HTTP/1.1\r\n" + payload,
        b"POST /debug/netmap HTTP/1.1\r\nHost: x\r\n\r\n" + payload,
    ):
        assert asyncio.run(answer_call(NodeDouble(), data)).startswith(b"HTTP/1.1 ")
