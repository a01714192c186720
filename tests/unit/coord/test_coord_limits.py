"""What a stranger may make the coordination server keep, and show."""

from __future__ import annotations

import asyncio
import json

import pytest

from meshd.base.errors import MeshdError
from meshd.coord.cli.output import print_table
from meshd.coord.control import MAX_MAP_BYTES, MAX_REGISTER_BYTES
from meshd.coord.pending import MAX_PER_SOURCE, PendingRegistrations
from meshd.testing.controlmachine import RequestFailed
from meshd.wire.control import RegisterRequest


@pytest.mark.parametrize(
    ("sources", "elsewhere"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8::{:x}", "2001:db8:0:1::1"),
        ("fe80::{:x}%eth0", "fe80:0:0:1::1"),
    ],
)
def test_pending_list_counts_a_whole_ipv6_network_as_one_source(sources, elsewhere):
    """Any host has 2^64 addresses; with each of them as a source of its own, one could fill the list for everybody."""

    async def scenario():
        pending = PendingRegistrations()
        for i in range(MAX_PER_SOURCE):
            pending.open(RegisterRequest(node_key=f"nodekey:{i:064x}"), "m", sources.format(i), 0.0, 0.0)
        late = RegisterRequest(node_key="nodekey:" + "f" * 64)
        with pytest.raises(MeshdError, match="too many machines"):
            pending.open(late, "m", sources.format(9999), 0.0, 0.0)
        assert pending.open(late, "m", elsewhere, 0.0, 0.0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "limit"), [("/machine/register", MAX_REGISTER_BYTES), ("/machine/map", MAX_MAP_BYTES)]
)
def test_request_larger_than_any_honest_one_is_refused(run_coord, path, limit):
    async def scenario(coord):
        machine = await coord.machine()
        body = json.dumps({"Version": 113, "Hostinfo": {"Hostname": "x" * limit}}).encode()
        with pytest.raises(RequestFailed) as caught:
            await machine.request(path, body)
        assert caught.value.status == 400

    run_coord(scenario)


def test_table_shows_control_characters_of_a_machine_that_waits(capsys):
    print_table(["HOSTNAME"], [["evil\x1b[2J\r\nok"]])
    assert capsys.readouterr().out.splitlines() == ["HOSTNAME", "evil\ufffd[2J\ufffd\ufffdok"]
