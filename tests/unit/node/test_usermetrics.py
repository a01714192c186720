"""The metrics with stable names."""

from __future__ import annotations

from meshd._fast.planestate import COUNTER_NAMES
from meshd.node.usermetrics import _DROPS, metric, traffic_metrics


def values(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (li.rsplit(" ", 1) for li in text.splitlines() if li[0] != "#")}


def test_traffic_metrics_show_bytes_and_packets_by_direction_and_path() -> None:
    """api:usermetrics: the names and labels that dashboards for tailscaled know."""
    text = traffic_metrics({"in_ipv4_bytes": 5, "in_ipv6_packets": 2, "out_derp_bytes": 7, "out_derp_packets": 1})
    found = values(text)
    assert found['tailscaled_inbound_bytes_total{path="direct_ipv4"}'] == 5
    assert found['tailscaled_inbound_packets_total{path="direct_ipv6"}'] == 2
    assert found['tailscaled_outbound_bytes_total{path="derp"}'] == 7
    assert found['tailscaled_outbound_packets_total{path="derp"}'] == 1
    assert sum(found.values()) == 15
    assert "# TYPE tailscaled_inbound_bytes_total counter\n# HELP tailscaled_inbound_bytes_total " in text


def test_traffic_metrics_count_every_lost_packet_once() -> None:
    """api:usermetrics: by what let it not through."""
    lost = [name for ways in _DROPS.values() for names in ways.values() for name in names]
    assert len(lost) == len(set(lost))
    assert set(lost) <= set(COUNTER_NAMES)
    found = values(traffic_metrics(dict.fromkeys(lost, 1)))
    drops = {name: value for name, value in found.items() if "dropped" in name}
    assert sum(drops.values()) == len(lost)
    assert drops['tailscaled_inbound_dropped_packets_total{reason="acl"}'] == 2
    assert drops['tailscaled_outbound_dropped_packets_total{reason="acl"}'] == 1


def test_metric_is_written_as_prometheus_reads_it() -> None:
    assert metric("x", "gauge", "Text", [("", 1), ('{a="b"}', 2)]) == (
        '# TYPE tailscaled_x gauge\n# HELP tailscaled_x Text\ntailscaled_x 1\ntailscaled_x{a="b"} 2\n'
    )
