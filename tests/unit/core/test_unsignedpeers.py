from __future__ import annotations

import pytest

from meshd.core.unsignedpeers import admits_unsigned
from meshd.wire.control import FilterRule
from tests.unit.core.mapworld import joined, node


@pytest.mark.parametrize(
    ("source", "admitted"),
    [
        ("*", True),
        ("100.64.0.2", True),
        ("100.64.0.3", False),
        ("100.64.0.0/24", True),
        ("100.64.0.1/24", False),  # host bits: matches nothing
        ("100.64.0.1-100.64.0.9", True),
        ("100.64.0.3-100.64.0.9", False),
        ("fd7a:115c:a1e0::/48", True),
        ("100.64.0.1-fd7a::1", False),
        ("cap:x", True),
        ("cap:y", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_admits_unsigned_understands_every_source_form(source: str, admitted: bool) -> None:
    netmap = joined(node(2, CapMap={"x": None})).netmap
    assert netmap is not None
    assert admits_unsigned([FilterRule(src_ips=(source,))], [netmap.peers[2]]) is admitted
    assert not admits_unsigned([FilterRule(src_ips=(source,))], [])
