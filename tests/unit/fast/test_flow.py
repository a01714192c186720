"""The flow table: what it keeps, what it forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.filter import ACCEPT, Filter
from meshd._fast.flow import FlowTable
from tests.reference import flow as reference
from tests.reference.packet import PacketInfo, parse
from tests.unit.fast.packets import A4, B4, ipv4, udp

PROGRAM = Filter([], [(B4, 32)])


def sent(port: int) -> bytes:
    return ipv4(17, udp(4000, port), B4, A4)


def reply(port: int) -> bytes:
    return ipv4(17, udp(port, 4000), A4, B4)


def known(flows: FlowTable, port: int) -> bool:
    return PROGRAM.check_in(reply(port), flows) == ACCEPT


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=200))
def test_flows_any_sequence_agrees_with_twin(steps: list[tuple[bool, int]]) -> None:
    """Below its capacity the table forgets nothing."""
    flows, twin = FlowTable(seed=1), reference.FlowTable()
    for outbound, port in steps:
        info = parse(sent(port) if outbound else reply(port))
        assert isinstance(info, PacketInfo)
        if outbound:
            PROGRAM.check_out(sent(port), flows)
            twin.remember(info)
        else:
            assert known(flows, port) == twin.seen(info)


def test_flows_newest_512_are_kept() -> None:
    """At least what the reference's list of 512 entries keeps."""
    flows = FlowTable(seed=2)
    for port in range(1, 20_001):
        PROGRAM.check_out(sent(port), flows)
    assert all(known(flows, port) for port in range(20_000 - 511, 20_001))


def test_flows_old_ones_are_replaced() -> None:
    flows = FlowTable(seed=3)
    for port in range(1, 60_001):
        PROGRAM.check_out(sent(port), flows)
    kept = sum(known(flows, port) for port in range(1, 60_001))
    assert 512 <= kept <= 4096
    assert not any(known(flows, port) for port in range(1, 10_000))


@pytest.mark.parametrize("outbound", [True, False])
def test_flows_used_one_outlives_newer_idle_ones(outbound: bool) -> None:
    flows = FlowTable(seed=4)
    PROGRAM.check_out(sent(1), flows)
    for port in range(2, 50_000):
        PROGRAM.check_out(sent(port), flows)
        if outbound:
            PROGRAM.check_out(sent(1), flows)
        else:
            assert known(flows, 1)
    assert known(flows, 1)
    assert not known(flows, 2)


def test_flows_repeated_packet_is_one_entry() -> None:
    flows = FlowTable()
    for _ in range(100):
        PROGRAM.check_out(sent(7), flows)
    assert flows.inserted == 1


def test_flows_clear_forgets() -> None:
    flows = FlowTable()
    PROGRAM.check_out(sent(7), flows)
    flows.clear()
    assert not known(flows, 7)
