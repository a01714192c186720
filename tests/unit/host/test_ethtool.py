"""Interface features."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self

import pytest

from meshd.host.linux import ethtool

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux")

TABLE = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\n"
    "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\n"
    "mesh0\t00004064\t00000000\t0001\t0\t0\t0\t0000C0FF\n"
)


def test_default_route_is_the_one_of_lowest_metric(tmp_path: Path) -> None:
    file = tmp_path / "route"
    file.write_text(TABLE)
    assert ethtool.default_route_interface(str(file)) == "eth0"
    file.write_text(TABLE.splitlines()[0])
    assert ethtool.default_route_interface(str(file)) == ""


def test_features_of_loopback_are_read() -> None:
    """The kernel's own list, by name."""
    with ethtool.Ethtool() as tool:
        features = tool.features("lo")
        assert features["tx-udp-segmentation"] in (True, False)
        with pytest.raises(OSError):
            tool.features("no-such-if")


class Fake:
    def __init__(self, table: dict[str, dict[str, bool]]) -> None:
        self.table = table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def features(self, interface: str) -> dict[str, bool]:
        return self.table[interface]


@pytest.mark.parametrize(
    ("tun", "wanted", "unwanted", "warned"),
    [(True, False, False, True), (True, True, False, False), (True, True, True, True), (False, False, False, False)],
)
def test_udp_gro_problem(
    monkeypatch: pytest.MonkeyPatch, tun: bool, wanted: bool, unwanted: bool, warned: bool
) -> None:
    """RT-11."""
    table = {
        "mesh0": {ethtool.SEND_NEEDED: tun},
        "eth0": {ethtool.RECEIVE_WANTED: wanted, ethtool.RECEIVE_UNWANTED: unwanted},
    }
    monkeypatch.setattr(ethtool, "Ethtool", lambda: Fake(table))
    monkeypatch.setattr(ethtool, "default_route_interface", lambda: "eth0")
    assert ("suboptimally configured on eth0" in ethtool.udp_gro_problem("mesh0")) is warned
