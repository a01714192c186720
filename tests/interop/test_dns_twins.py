"""meshd and tailscaled, members of one network of headscale, are asked the same questions: they say the same.

Not asked: NS and SOA of nodes, to which tailscaled says that it does not know how; ANY, of which it gives one record;
and a name whose answer somebody forges, for it takes the forgery.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.labhosts import Node, program, running_lab, wait_until
from tests.interop.genuine import ADDRESS, GenuineNode, Headscale, needs

pytestmark = [
    pytest.mark.netns,
    pytest.mark.interop,
    *needs("headscale", "derper", "tailscaled", "tailscale"),
    pytest.mark.skipif(not shutil.which("dig"), reason="dig is not on PATH (Debian: bind9-dnsutils)"),
]

UPSTREAM = Path(__file__).parents[1] / "e2e" / "upstream.py"
DNS = (
    f"nameservers: {{global: [], split: {{corp.test: [{ADDRESS}]}}}}, search_domains: [corp.test], "
    "extra_records: [{name: printer.mesh.test, type: A, value: 10.9.9.9}, "
    "{name: six.mesh.test, type: AAAA, value: '2001:db8::6'}]"
)
QUESTIONS = [
    "node-a.mesh.test", "node-b.mesh.test", "NODE-b.Mesh.Test", "node-b.mesh.test AAAA", "node-b.mesh.test TXT",
    "node-b.mesh.test MX", "node-b.mesh.test SRV", "node-b.mesh.test HTTPS", "node-b.mesh.test TYPE65280",
    "nobody.mesh.test", "nobody.mesh.test AAAA", "a.node-b.mesh.test", "printer.mesh.test", "printer.mesh.test AAAA",
    "six.mesh.test", "six.mesh.test AAAA", "-x V4B", "-x V6B", "-x V4A", "-x 100.64.99.99", "-x 100.100.100.100",
    "-x fd7a:115c:a1e0::53", "-x fd7a:115c:a1e0::9999", "x.onion", "10-1-1-16-via-7", "10-1-1-16-via-7 AAAA",
    "10-1-1-16-via-7.x.ts.net AAAA", "10-1-1-16-via-7.x.ts.net", "10-1-1-300-via-7 AAAA",
    "b._dns-sd._udp.corp.test PTR", "lb._dns-sd._udp.0.64.100.in-addr.arpa PTR",
    "one.corp.test", "corp.test", "big.corp.test", "servfail.corp.test", "elsewhere.example",
    "magicdns.localhost-tailscale-daemon", "magicdns.localhost-tailscale-daemon AAAA", "node-b", "node-b.",
]  # fmt: skip
TRANSPORTS = ["+notcp", "+tcp"]


class Said(NamedTuple):
    """What a program sees of an answer. The order of addresses is of no meaning; how long "no" may be remembered is
    said by meshd and by tailscaled of 2026, not by earlier ones."""

    status: str
    answers: tuple[str, ...]


def ask(node: Node, question: str, transport: str) -> Said:
    done = node.lab.run(
        node.host, "dig", "@100.100.100.100", "+time=8", "+tries=1", "+nocookie", transport, *question.split(),
        check=False,
    )  # fmt: skip
    status = re.search(r"status: (\w+)", done.stdout)
    sections = re.split(r"^;; (\w+) SECTION:$", done.stdout, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))

    rows = found.get("ANSWER", "").split("\n\n")[0].strip().splitlines()
    return Said(status[1] if status else done.stdout, tuple(sorted(" ".join(row.split()).lower() for row in rows)))


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with running_lab(tmp_path_factory.mktemp("dnstwins"), "mt-dnstw") as lab:
        for host in ("a", "b"):
            Path(f"/etc/netns/{lab.name}-{host}/resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        server = Headscale(lab, dns=DNS)
        upstream = lab.start("net", "upstream.log", program("python"), str(UPSTREAM), ADDRESS)
        wait_until(lambda: "ready" in upstream.output, 5, "the name server")
        ours, genuine = Node(lab, "a"), GenuineNode(lab, "b")
        for node in (ours, genuine):
            node.mesh("up", f"--login-server={server.url}", f"--auth-key={server.auth_key}", f"--hostname={node.name}")
        wait_until(lambda: ours.peer("node-b") and genuine.peer("node-a"), 15, "the twins to know each other")
        yield ours, genuine


def addresses(twins: tuple[Node, Node]) -> dict[str, str]:
    ours, genuine = twins
    return {
        "V4A": ours.ip,
        "V4B": genuine.ip,
        "V6B": genuine.mesh("ip", "-6").stdout.strip(),
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_dns_twins_say_the_same(twins: tuple[Node, Node], question: str, transport: str) -> None:
    """DN-01, DN-04, DN-07, DN-12, DN-14: status and records."""
    for name, address in addresses(twins).items():
        question = question.replace(name, address)
    ours, genuine = twins
    assert ask(ours, question, transport) == ask(genuine, question, transport)
