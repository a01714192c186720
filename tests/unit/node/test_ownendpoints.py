"""Our endpoints as the process sees them when the host is in trouble."""

from __future__ import annotations

import errno
from types import SimpleNamespace

from meshd.base.addr import parse_ip
from meshd.node.ownendpoints import OwnEndpoints
from meshd.testing.clock import FakeClock


def test_refresh_without_a_descriptor_left_keeps_the_addresses_known_before():
    """EMFILE: a check that ends must still be told to control, and peers keep hearing where we are."""
    clock, told, trouble = FakeClock(), [], []

    def local_addresses():
        if trouble:
            raise OSError(errno.EMFILE, "Too many open files")
        return [parse_ip("192.0.2.7")]

    underlay = SimpleNamespace(port_v4=41641, port_v6=0, send=None)
    endpoints = OwnEndpoints(clock, clock, lambda: underlay, local_addresses, told.append, fixed_port=0)
    endpoints.refresh()
    trouble.append(True)
    endpoints.network_changed()
    endpoints.refresh()
    assert [str(address) for address in endpoints.addresses] == ["192.0.2.7:41641"]
    assert len(told) == 1
