"""The kernel's routing tables are only read here."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from meshd.host.linux.rtnetlink import RtNetlink
from meshd.wire import netlink as nl

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rtnetlink is Linux's")
LOCAL, NOBODYS = 255, 0x4D455348


@pytest.fixture
def netlink() -> Iterator[RtNetlink]:
    opened = RtNetlink()
    yield opened
    opened.close()


@pytest.mark.parametrize("family", [nl.AF_INET, nl.AF_INET6])
def test_routes_of_other_tables_are_not_even_sent(netlink: RtNetlink, family: int) -> None:
    """RT-14: beside a million routes to the Internet each look cost seconds."""
    answers = netlink.dump(nl.get_routes(family, LOCAL))
    found = [route for m in answers if (route := nl.decode_route(m)) is not None and route.family == family]
    assert {route.table for route in found} <= {LOCAL}
    assert [route for route in netlink.routes(LOCAL) if route.family == family] == found


def test_routes_of_a_table_that_is_not_there_are_none(netlink: RtNetlink) -> None:
    assert netlink.routes(NOBODYS) == []


def test_other_dumps_stand_the_strict_check(netlink: RtNetlink) -> None:
    assert netlink.links()
    netlink.addresses()
    netlink.rules(nl.AF_INET)
