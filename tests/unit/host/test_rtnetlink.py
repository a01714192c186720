"""The kernel's routing tables are only read here."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from meshd.base.errors import MeshdError
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


def test_answer_that_was_lost_is_a_message(netlink: RtNetlink) -> None:
    """RT-12: with a small ``net.core.rmem_default`` the errors of many routes did not fit, which nobody expected."""
    missing = [nl.replace_route(ip_network(f"192.0.2.{i}/32"), NOBODYS, 0x7FFFFFF0) for i in range(128)]
    assert set(netlink.execute(missing)) <= {errno.ENODEV, errno.EPERM}
    netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    with pytest.raises(MeshdError, match="buffer space"):
        netlink.execute(missing)
