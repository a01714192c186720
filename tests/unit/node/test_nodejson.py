"""Nodes and users as programs read them."""

from __future__ import annotations

import pytest

from meshd.node.nodejson import node_json, user_json
from meshd.wire.control import Hostinfo, Resolver, UserProfile
from tests.unit.node.test_status import node

SUFFIX = "mesh.test"


@pytest.mark.parametrize(
    ("name", "hostname", "computed", "with_host"),
    [
        ("db.mesh.test.", "", "db", "db"),
        ("db.mesh.test.", "DB", "db", "db"),
        ("DB.Mesh.Test.", "db.local", "DB", "DB"),
        ("anns-mac-book.mesh.test.", "Ann's Mac_Book", "anns-mac-book", "anns-mac-book"),
        ("db.mesh.test.", "(other host)", "db", "db (other-host)"),
        ("db.mesh.test.", "…", "db", "db"),
        ("db.other.ts.net.", "db", "db.other.ts.net", "db.other.ts.net (db)"),
        ("mesh.test.", "", "mesh.test", "mesh.test"),
        ("db", "", "db", "db"),
        ("", "The Host", "the-host", "the-host"),
    ],
)
def test_node_json_names_a_node_as_people_know_it(name: str, hostname: str, computed: str, with_host: str) -> None:
    """NM-10: nodes of other networks by their full names; what the machine calls itself only where it differs."""
    shown = node_json(node(2, name=name, hostinfo=Hostinfo(hostname=hostname)), SUFFIX)
    assert (shown["ComputedName"], shown["ComputedNameWithHost"]) == (computed, with_host)


def test_node_json_of_a_node_without_names_goes_by_its_key() -> None:
    nameless = node(2, name="")
    shown = node_json(nameless, "")
    assert shown["ComputedName"] == shown["ComputedNameWithHost"] == nameless.key.text()


def test_node_json_tells_signature_audit_id_and_resolvers_where_there_are_some() -> None:
    """DN-06."""
    full = node(
        2,
        key_signature=b"\x01\x02\x03",
        data_plane_audit_log_id="log",
        exit_node_dns_resolvers=(Resolver(addr="9.9.9.9"),),
    )
    shown = node_json(full, SUFFIX)
    assert shown["KeySignature"] == "AQID"
    assert shown["DataPlaneAuditLogID"] == "log"
    assert shown["ExitNodeDNSResolvers"] == [{"Addr": "9.9.9.9"}]
    assert node_json(node(2), SUFFIX).keys().isdisjoint({"KeySignature", "DataPlaneAuditLogID", "ExitNodeDNSResolvers"})


def test_user_json_tells_the_groups_that_the_network_tells() -> None:
    """NM-05."""
    profile = UserProfile(id=7, login_name="u@x", display_name="U")
    assert "Groups" not in user_json(profile)
    grouped = UserProfile(id=7, login_name="u@x", display_name="U", groups=("group:ops", "group:dev"))
    assert user_json(grouped)["Groups"] == ["group:ops", "group:dev"]
