"""What policies claim of themselves."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.coord.policy.claims import broken_claims
from meshd.coord.policy.document import parse_policy
from tests.unit.coord.policyworld import policy_network

CLAIMED = """{"groups": {"group:b": ["bob"]}, "hosts": {"lap": "100.64.0.1", "lan": "10.1.0.0/16"},
  "tagOwners": {"tag:web": [], "tag:db": []},
  "acls": [
    {"action": "accept", "proto": "tcp", "src": ["alice"], "dst": ["tag:web:80,8000-8999"]},
    {"action": "accept", "src": ["lap"], "dst": ["lan:443", "bob:53"]},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:22"]},
  ],
  "grants": [{"src": ["*"], "dst": ["tag:web"], "ip": ["udp:53", "icmp:*"]}],
  "tests": [%s]}"""


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        ({"src": "alice", "accept": ["tag:web:80", "tag:web:8080"], "deny": ["tag:web:22", "bob:443"]}, ""),
        ({"src": "alice", "accept": ["tag:web:22"]}, "alice cannot reach tag:web:22"),
        ({"src": "alice", "deny": ["tag:web:8080"]}, "alice can reach tag:web:8080"),
        ({"src": "alice", "accept": ["tag:web:80-90"]}, "alice cannot reach tag:web:80-90"),
        ({"src": "alice", "accept": ["tag:web:80"], "proto": "tcp", "deny": ["tag:web:53"]}, ""),
        ({"src": "alice", "proto": "udp", "accept": ["tag:web:53"], "deny": ["tag:web:80"]}, ""),
        ({"src": "alice", "proto": "icmp", "accept": ["tag:web:*"]}, ""),
        ({"src": "alice", "proto": "gre", "deny": ["tag:web:*"]}, ""),
        ({"src": "alice", "proto": "gre", "accept": ["tag:web:*"]}, "alice cannot reach tag:web:*"),
        ({"src": "group:b", "accept": ["tag:web:53"], "deny": ["tag:web:80"]}, ""),
        ({"src": "lap", "accept": ["10.1.2.3:443"], "deny": ["10.2.2.3:443", "10.1.2.3:80"]}, ""),
        ({"src": "100.64.0.1", "accept": ["lan:443"]}, ""),
        ({"src": "alice", "accept": ["lan:443"]}, "alice cannot reach lan:443"),  # with one of two machines
        ({"src": "alice", "deny": ["lan:443"]}, "alice can reach lan:443"),
        ({"src": "alice", "accept": ["100.64.0.5:22", "alice:22"], "deny": ["bob:22"]}, ""),
        ({"src": "bob", "deny": ["alice:22"], "accept": ["bob:22"]}, ""),
        ({"src": "tag:web", "deny": ["alice:22", "lap:*"]}, ""),
        ({"src": "*", "accept": ["tag:web:53"], "deny": ["100.64.0.9:22"]}, ""),
        ({"src": "*", "accept": ["tag:web:80"]}, "* cannot reach tag:web:80"),
        ({"src": "autogroup:tagged", "deny": ["*:22"]}, ""),
        ({"src": "carol", "deny": ["bob:22"]}, "carol stands for no address"),
        ({"src": "tag:db", "deny": ["bob:22"]}, "tag:db stands for no address"),
        ({"src": "bob", "accept": ["tag:db:22"]}, "tag:db stands for no address"),
        ({"src": "bob"}, ""),
    ],
)
def test_policy_claims_hold_or_are_named(claim, problem):
    document = parse_policy(CLAIMED % json.dumps(claim), "file")
    found = broken_claims(document, policy_network())
    assert found[0].startswith(f"file:9:13: {problem}") if problem else found == [], found
    assert len(found) <= 1


def test_policy_claims_are_tried_before_a_policy_holds(run_coord, caplog, tmp_path):
    """What fails when a policy is set keeps the old one; at a start it is told, since nodes may have gone since."""

    async def scenario(coord):
        one, two = await coord.joined("one"), await coord.joined("two")
        assert one is not two
        allow = '{"acls": [{"action": "accept", "src": ["default"], "dst": ["default:%s"]}], "tests": [%s]}'
        good = allow % (22, '{"src": "default", "accept": ["default:22"]}')
        await coord.admin("policy.set", text=good)
        with pytest.raises(MeshdError, match=r"policy:1:\d+: default cannot reach default:22"):
            await coord.admin("policy.set", text=allow % (23, '{"src": "default", "accept": ["default:22"]}'))
        many = ",".join(['{"src": "default", "deny": ["default:22"]}'] * 12)
        with pytest.raises(MeshdError, match="2 more"):
            await coord.admin("policy.set", text=allow % (22, many))
        assert (await coord.admin("policy.get"))["text"] == good
        service = coord.service
        path = tmp_path / "policy"
        path.write_text(allow % (24, '{"src": "default", "accept": ["default:22"]}'))
        service._policy.file = path
        service.reload_policy()
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["policy_refused"]
        assert service._policy.text == good

    run_coord(scenario)


def test_policy_whose_claims_fail_is_told_at_the_start(options, running, caplog):
    async def scenario():
        options.state_dir.mkdir(parents=True, exist_ok=True)
        path = options.state_dir / "policy"
        path.write_text('{"tests": [{"src": "carol", "accept": ["default:22"]}]}')
        async with running(replace(options, policy_file=path)):
            pass

    asyncio.run(scenario())
    assert "policy_test_failed" in [record.message for record in caplog.records]
