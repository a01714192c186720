"""The official command line asks meshd and tailscaled, members of one network, the same: both answer alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.labhosts import Coordinator, Node, running_lab, wait_until
from tests.interop.genuine import ADDRESS, GenuineNode, needs, official, private_address

pytestmark = [pytest.mark.netns, pytest.mark.interop, *needs("tailscaled", "tailscale")]

# In order: what one sets another reads. PEER is the address of the twin, SELF the own one.
COMMANDS = [
    "status", "status --json", "status --peers=false", "status --active", "ip", "ip -4", "ip -6", "ip PEER",
    "ip nosuch.invalid", "version --daemon", "netcheck", "netcheck --format=json", "wait --timeout=5s",
    "ping --c 1 PEER", "ping --c 1 --tsmp PEER", "ping --c 1 --icmp PEER", "ping --c 1 SELF", "ping",
    "ping --c 1 --timeout 1s 100.99.99.99", "whois PEER", "whois --json PEER", "whois SELF", "whois 100.99.99.99",
    "whois", "get", "get --json", "get hostname", "get nosuch",
    "set --nickname=work", "set --accept-routes", "set --accept-routes=false", "set --shields-up",
    "set --shields-up=false", "set --advertise-routes=10.1.0.1/24", "set --advertise-routes=10.1.0.0/24",
    "set --advertise-routes=", "set --exit-node=PEER", "set --exit-node=nosuch", "set --exit-node=",
    "set --netfilter-mode=x", "set --operator=root", "set --operator=", "set --ssh=nonsense",
    "switch --list", "switch nosuch", "switch", "exit-node list", "exit-node suggest", "exit-node",
    "dns status", "dns status --json", "dns query", "lock", "lock status", "lock status --json", "lock log",
    "serve status", "serve status --json", "funnel status", "bugreport", "metrics print", "metrics nosuch",
    "debug prefs", "debug netmap", "debug derp-map", "debug watch-ipn --count=1 --initial", "debug restun",
    "debug rebind", "debug component-logs magicsock", "debug peer-endpoint-changes PEER",
    "debug localapi GET status", "debug nosuch", "cert", "nosuch", "status extra",
    "up --hostname=other", "up --timeout=20s", "down", "down", "status", "ping --c 1 PEER", "ip",
]  # fmt: skip
AFTERWARDS = ["logout", "status", "ip", "logout", "whois PEER", "switch --list", "ping --c 1 PEER"]


class Answer(NamedTuple):
    """What a program that calls the command can tell apart: how it ends, what speaks, the names in its JSON."""

    exit: int
    prints: bool
    complains: bool
    names: frozenset[str]


# Of the network map meshd tells what clients of 2024 read as well; PeerAPI and Taildrop are not part of meshd.
IGNORED = {"Cached", "Expiry", "MachineStatus", "Name", "unstableBranch", "CapMap"}


def names(text: str) -> frozenset[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return frozenset()
    return frozenset(found) - IGNORED if isinstance(found, dict) else frozenset()


def ask(node: Node, peer: Node, words: str, own_ip: str, peer_ip: str) -> Answer:
    arguments = words.replace("PEER", peer_ip).replace("SELF", own_ip).split()
    done = official(node, *arguments, check=False, seconds=40)
    # It is of another version than meshd and says so; the genuine daemon makes it log about the network it sees.
    errors = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith("Warning: client version") and "portmap" not in line
    ]
    return Answer(done.returncode, bool(done.stdout.strip()), bool("".join(errors).strip()), names(done.stdout))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Answer, Answer]]]:
    """Every command with the answers through meshd and through tailscaled."""
    with running_lab(tmp_path_factory.mktemp("twins"), "mt-twins") as lab:
        private_address(lab)
        coordinator = Coordinator(lab, url=f"http://{ADDRESS}:8080")
        ours, genuine = Node(lab, "a"), GenuineNode(lab, "b")
        for node in (ours, genuine):
            node.up(coordinator)
        first, second = ours.ip, genuine.ip
        wait_until(
            lambda: "pong" in official(ours, "ping", "--c=5", second, check=False).stdout, 20, "the twins to meet"
        )
        found = {}
        for number, words in enumerate(COMMANDS + AFTERWARDS):
            if number == len(COMMANDS):
                for node in (ours, genuine):
                    official(node, "up")
            pair = ask(ours, genuine, words, first, second), ask(genuine, ours, words, second, first)
            found[f"{number} {words}"] = pair
        yield found


@pytest.mark.parametrize("number", range(len(COMMANDS + AFTERWARDS)), ids=lambda n: (COMMANDS + AFTERWARDS)[n])
def test_daemon_twins_answer_alike(answers: dict[str, tuple[Answer, Answer]], number: int) -> None:
    """NM-10, CL-02: the same exit code, the same streams, the same names in JSON."""
    through_meshd, through_tailscaled = answers[f"{number} {(COMMANDS + AFTERWARDS)[number]}"]
    assert through_meshd == through_tailscaled
