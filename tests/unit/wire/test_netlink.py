"""rtnetlink messages, with pyroute2 as the second opinion."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from ipaddress import ip_network as net

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from meshd.base.errors import WireError
from meshd.wire import netlink as nl


def parsed(kind: type, request: nl.Request) -> object:
    message = kind(request.pack(1))
    message.decode()
    return message


def test_link_request_says_up_and_mtu() -> None:
    message = parsed(ifinfmsg, nl.set_link(7, up=True, mtu=1280))
    assert (message["index"], message["flags"] & 1, message["change"]) == (7, 1, 1)
    assert message.get_attr("IFLA_MTU") == 1280


def test_segmentation_limit_names_both_families() -> None:
    message = parsed(ifinfmsg, nl.limit_segmentation(7, 60224))
    assert message.get_attr("IFLA_GSO_MAX_SIZE") == 60224
    assert message["change"] == 0


@pytest.mark.parametrize(("text", "family"), [("100.64.0.1/32", 2), ("fd7a:115c:a1e0::1/128", 10)])
def test_address_request_names_address_and_interface(text: str, family: int) -> None:
    message = parsed(ifaddrmsg, nl.add_address(7, net(text)))
    assert (message["family"], message["index"]) == (family, 7)
    assert f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}" == text


@pytest.mark.parametrize(
    ("text", "interface", "kind"),
    [("100.64.0.2/32", 7, 1), ("fd7a:115c:a1e0::/48", 7, 1), ("10.0.0.0/8", None, 9), ("0.0.0.0/0", 7, 1)],
)
def test_route_request_names_table_and_target(text: str, interface: int | None, kind: int) -> None:
    message = parsed(rtmsg, nl.replace_route(net(text), 52, interface))
    assert (message.get_attr("RTA_TABLE"), message["type"], message.get_attr("RTA_OIF")) == (52, kind, interface)
    destination = message.get_attr("RTA_DST")
    assert text == f"{destination or '0.0.0.0'}/{message['dst_len']}"


def test_rule_request_survives_the_round_trip() -> None:
    rule = nl.Rule(nl.AF_INET, 5210, nl.FR_ACT_TO_TBL, 254, 0x80000, 0xFF0000)
    request = nl.add_rule(rule)
    message = parsed(fibmsg, request)
    assert message.get_attr("FRA_FWMARK") == 0x80000
    assert nl.decode_rule(nl.Message(nl.RTM_NEWRULE, 1, request.body)) == rule


@pytest.mark.parametrize("text", ["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.1/128", "::ffff:0:0/96"])
def test_route_reads_back_with_the_destination_it_was_written_with(text: str) -> None:
    """Distributions have a route to ::ffff:0:0/96, the way to write IPv4 in IPv6, which goes nowhere."""
    wanted = net(text)
    route = nl.decode_route(nl.Message(nl.RTM_NEWROUTE, 1, nl.replace_route(wanted, 52, 7).body))
    assert route is not None
    assert route.prefix == (wanted.network_address, wanted.prefixlen)


def test_address_with_another_at_the_far_end_says_so() -> None:
    """``ip addr add 10.0.0.1 peer 10.9.0.1/24``: the network of the link is 10.9.0.0/24."""

    def message(local: bytes, address: bytes) -> nl.Message:
        body = struct.pack("=BBBBi", nl.AF_INET, 24, 0, 0, 3)
        body += struct.pack("=HH4sHH4s", 8, nl.IFA_ADDRESS, address, 8, nl.IFA_LOCAL, local)
        return nl.Message(nl.RTM_NEWADDR, 0, body)

    own, far = ip_address("10.0.0.1"), ip_address("10.9.0.1")
    assert nl.decode_address(message(own.packed, far.packed)) == nl.InterfaceAddress(3, own, 24, far=far)
    assert nl.decode_address(message(own.packed, own.packed)) == nl.InterfaceAddress(3, own, 24)


def test_tun_queues_are_those_of_all_processes() -> None:
    data = struct.pack("=HHIHHI", 8, nl.IFLA_TUN_NUM_QUEUES, 3, 8, nl.IFLA_TUN_NUM_DISABLED_QUEUES, 1)
    info = struct.pack("=HH4s", 8, nl.IFLA_INFO_KIND, b"tun\0") + struct.pack("=HH", 20, nl.IFLA_INFO_DATA) + data
    link = bytes(16) + struct.pack("=HH", 4 + len(info), nl.IFLA_LINKINFO) + info
    assert nl.decode_tun_queues(nl.Message(nl.RTM_NEWLINK, 0, link)) == 4
    assert nl.decode_tun_queues(nl.Message(nl.RTM_NEWLINK, 0, link.replace(b"tun", b"tap"))) == 0
    assert nl.decode_tun_queues(nl.Message(nl.RTM_NEWLINK, 0, bytes(16))) == 0


def test_error_message_gives_the_errno() -> None:
    body = struct.pack("=i", -17) + bytes(16)
    assert nl.error_number(nl.Message(nl.NLMSG_ERROR, 1, body)) == 17


@given(st.binary(max_size=200))
def test_any_bytes_from_the_kernel_are_read_or_refused(data: bytes) -> None:
    try:
        for message in nl.messages(data):
            for decode in (
                nl.decode_link,
                nl.decode_tun_queues,
                nl.decode_address,
                nl.decode_route,
                nl.decode_rule,
                nl.decode_netconf,
            ):
                try:
                    decode(message)
                except WireError:
                    continue
    except WireError:
        return
