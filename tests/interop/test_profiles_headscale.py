"""Login profiles of one meshd in a network that headscale keeps."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.labhosts import Lab, Node, running_lab, wait_until
from tests.interop.genuine import Headscale, needs

pytestmark = [pytest.mark.netns, pytest.mark.interop, *needs("headscale", "derper")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("hsprofiles"), "mt-hsprof") as lab:
        yield lab


@pytest.fixture(scope="module")
def headscale(lab: Lab) -> Headscale:
    return Headscale(lab)


def me(node: Node) -> dict[str, Any]:
    wait_until(lambda: node.status()["BackendState"] == "Running", 30, "the node to run")
    return dict(node.status()["Self"])


def selected(node: Node) -> str:
    listed = json.loads(node.mesh("switch", "--list", "--json").stdout)
    return str(next((one["account"] for one in listed if one["selected"]), ""))


def test_profiles_of_two_users_are_switched_killed_and_removed(lab: Lab, headscale: Headscale) -> None:
    """PS-09, PS-10, PS-11, PS-12, INV-2: a key and an address each, also after SIGKILL right after a switch."""
    node = Node(lab, "a", "--tun=userspace-networking")
    join = ("--timeout=30s", f"--login-server={headscale.url}")
    node.mesh("up", f"--auth-key={headscale.auth_key}", "--hostname=first", *join)
    first = me(node)
    one = selected(node)
    user = headscale.command("users", "create", "v")["id"]
    key = headscale.command("preauthkeys", "create", "--user", str(user))["key"]
    node.mesh("login", f"--auth-key={key}", "--hostname=second", *join)
    second = me(node)
    two = selected(node)
    assert one != two
    assert first["PublicKey"] != second["PublicKey"]
    assert first["TailscaleIPs"] != second["TailscaleIPs"]
    for name, expected in ((one, first), (two, second), (one, first)):
        assert node.mesh("switch", name).stdout.endswith("Success.\n")
        node.stop(signal.SIGKILL)
        node.start()
        now = me(node)
        assert selected(node) == name
        assert (now["PublicKey"], now["TailscaleIPs"]) == (expected["PublicKey"], expected["TailscaleIPs"])
    node.mesh("switch", "remove", two)
    assert (selected(node), me(node)["PublicKey"]) == (one, first["PublicKey"])
    assert len(headscale.command("nodes", "list")) == 2
