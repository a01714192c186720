"""Our own endpoints and their order."""

from __future__ import annotations

from meshd.base.addr import AddrPort, parse_ip
from meshd.core.endpoints import (
    REMEMBERED_S,
    Endpoint,
    EndpointKind,
    EndpointList,
    StunFindings,
    local_candidates,
    thin_out,
)

SEEN = AddrPort.parse("203.0.113.5:7000")
SEEN6 = AddrPort.parse("[2001:db8::5]:7000")
LOCAL = parse_ip("192.168.1.2")


def build(endpoints, now=0.0, **changes):
    options = {"stun": StunFindings(), "local": [LOCAL], "port_v4": 41641, "port_v6": 41642} | changes
    return endpoints.build(now, **options)


def ips(*texts):
    return [parse_ip(text) for text in texts]


def test_endpoints_order_is_mapped_stun_configured_local():
    mapped, fixed = AddrPort.parse("203.0.113.5:1"), AddrPort.parse("198.51.100.1:9")
    found = build(
        EndpointList(),
        stun=StunFindings((SEEN,), (SEEN6,), mapping_varies=True),
        fixed_port=41641,
        mapped=mapped,
        configured=[fixed],
    )
    assert found == [
        Endpoint(mapped, EndpointKind.PORT_MAPPED),
        Endpoint(SEEN, EndpointKind.STUN),
        Endpoint(SEEN6, EndpointKind.STUN),
        Endpoint(AddrPort(SEEN.ip, 41641), EndpointKind.STUN_LOCAL_PORT),
        Endpoint(fixed, EndpointKind.CONFIGURED),
        Endpoint(AddrPort(LOCAL, 41641), EndpointKind.LOCAL),
    ]


def test_endpoints_numbers_sent_to_control():
    assert [int(kind) for kind in EndpointKind] == [0, 1, 2, 3, 4, 5]


def test_endpoints_local_address_equal_to_stun_listed_once_as_stun():
    same = AddrPort(LOCAL, 41641)
    assert build(EndpointList(), stun=StunFindings((same,))) == [Endpoint(same, EndpointKind.STUN)]


def test_endpoints_local_port_guess_needs_varying_mapping_and_fixed_port():
    stun = StunFindings((SEEN,))
    kinds = {e.kind for e in build(EndpointList(), stun=stun, fixed_port=41641)}
    assert EndpointKind.STUN_LOCAL_PORT not in kinds
    varying = stun._replace(mapping_varies=True)
    assert EndpointKind.STUN_LOCAL_PORT not in {e.kind for e in build(EndpointList(), stun=varying)}


def test_endpoints_remembered_for_310_s():
    endpoints = EndpointList()
    build(endpoints, 0.0, stun=StunFindings((SEEN,)))
    assert REMEMBERED_S == 310
    assert SEEN in [e.addr for e in build(endpoints, 310.0)]
    assert SEEN not in [e.addr for e in build(endpoints, 310.1)]


def test_endpoints_at_most_six_remembered_per_address():
    endpoints = EndpointList()
    for n in range(20):
        build(endpoints, float(n), stun=StunFindings((AddrPort(SEEN.ip, 7000 + n),)))
    ports = [e.addr.port for e in build(endpoints, 20.0) if e.addr.ip == SEEN.ip]
    assert ports == [7019, 7018, 7017, 7016, 7015, 7014]


def test_endpoints_forgotten_after_network_change():
    endpoints = EndpointList()
    build(endpoints, 0.0, stun=StunFindings((SEEN,)))
    endpoints.forget()
    assert [e.kind for e in build(endpoints, 1.0)] == [EndpointKind.LOCAL]


def test_endpoints_without_socket_lists_no_local_address():
    assert build(EndpointList(), port_v4=0) == []


def test_thin_out_leaves_two_ipv6_addresses_of_each_network():
    """TS_DEBUG_FORCE_ALL_IPV6_ENDPOINTS is for the case without it."""
    many = ips("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3", "2001:db8:0:1::1", "192.0.2.3")
    assert thin_out(many) == [ip for ip in many if str(ip) != "2001:db8::3"]


def test_local_candidates_leave_out_mesh_and_link_local():
    found = local_candidates(ips("100.64.0.1", "fd7a:115c:a1e0::1", "fe80::1", "192.168.1.2", "2001:db8::1"))
    assert found == ips("192.168.1.2", "2001:db8::1")


def test_local_candidates_second_choice_only_without_first():
    assert local_candidates(ips("169.254.1.1", "fd00::1", "10.0.0.1")) == ips("10.0.0.1")
    assert local_candidates(ips("169.254.1.1", "fd00::1", "127.0.0.1")) == ips("169.254.1.1", "fd00::1")


def test_local_candidates_loopback_only_alone():
    assert local_candidates(ips("127.0.0.1", "::1")) == ips("127.0.0.1", "::1")
    assert local_candidates(ips("127.0.0.1", "192.0.2.1")) == ips("192.0.2.1")
