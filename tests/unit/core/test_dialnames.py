"""Names that programs connect to through this node."""

from __future__ import annotations

from meshd.core.dialnames import dial_address
from tests.unit.core.mapworld import joined, node, own, send


def test_dial_name_is_a_node_by_full_or_short_name_in_any_case() -> None:
    """DI-01: we ourselves and the peers, the first address of each; a trailing dot means nothing."""
    netmap = joined(node(2), DNSConfig={"Domains": ["mesh.test"], "Proxied": True}).netmap
    assert netmap is not None
    for name in ("n2.mesh.test", "N2.Mesh.Test.", "n2", "N2"):
        assert str(dial_address(netmap, name)) == "100.64.0.2"
    assert str(dial_address(netmap, "n1")) == "100.64.0.1"
    for name in ("n3", "n2.other.test", "n2.mesh", "", ".", "100.64.0.2"):
        assert dial_address(netmap, name) is None


def test_dial_name_gives_no_old_address_to_a_node_that_has_none() -> None:
    """DI-01: it could not connect to it."""
    session = joined(node(2))
    only_new = ["fd7a:115c:a1e0:ab12::1/128"]
    send(session, Node=own(Addresses=only_new, AllowedIPs=only_new))
    assert session.netmap is not None
    assert str(dial_address(session.netmap, "n2.mesh.test")) == "fd7a:115c:a1e0:ab12::2"


def test_dial_name_of_an_extra_record_counts_without_type_only() -> None:
    """DI-01: records of the network beside its nodes; what is no address is passed over."""
    records = [
        {"Name": "svc.mesh.test", "Value": "nonsense"},
        {"Name": "Svc.Mesh.Test.", "Value": "100.99.0.1"},
        {"Name": "typed.mesh.test", "Type": "A", "Value": "100.99.0.2"},
        {"Name": "", "Value": "100.99.0.3"},
    ]
    netmap = joined(node(2), DNSConfig={"ExtraRecords": records, "Proxied": True}).netmap
    assert netmap is not None
    assert str(dial_address(netmap, "svc.mesh.test")) == "100.99.0.1"
    assert dial_address(netmap, "typed.mesh.test") is None
    assert dial_address(netmap, "") is None
