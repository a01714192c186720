"""The metrics with stable names, which dashboards and alarms for tailscaled know. Everything else that is counted may
change from one version to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_WAYS = (("direct_ipv4", "ipv4"), ("direct_ipv6", "ipv6"), ("derp", "derp"))
_DIRECTIONS = (("inbound", "in", "received from"), ("outbound", "out", "sent to"))

# Why packets were lost, by the counters of the data plane. What the policy does not let through is "acl"; packets that
# belong to no session are not counted, as nobody knows whose they were.
_DROPS = {
    "inbound": {
        "acl": ("in_filtered", "in_source"),
        "error": (
            "in_expired",
            "in_forged",
            "in_replayed",
            "in_malformed",
            "in_via_no_ipv4",
            "in_via_refused",
            "in_via_no_port",
            "in_via_no_flow",
            "in_device_error",
        ),
    },
    "outbound": {
        "acl": ("out_filtered",),
        "error": (
            "out_malformed",
            "out_no_route",
            "out_staged_limit",
            "out_too_big",
            "out_no_path",
            "out_no_socket",
            "out_socket_full",
            "out_refused",
            "out_unreachable",
            "out_socket_error",
            "out_relay_full",
            "out_seal_error",
            "out_via_too_big",
            "out_via_refused",
        ),
    },
}


def traffic_metrics(counters: Mapping[str, int]) -> str:
    """What was carried to and from peers, by the way that it took, and what was lost; ``counters`` are those of the
    data plane. Bytes are those of the encrypted packets. A packet that went both ways at once counts for each."""
    return "".join(
        metric(
            f"{name}_{unit}_total",
            "counter",
            f"Number of {unit} {verb} other nodes",
            ((f'{{path="{way}"}}', counters.get(f"{short}_{kind}_{unit}", 0)) for way, kind in _WAYS),
        )
        for name, short, verb in _DIRECTIONS
        for unit in ("bytes", "packets")
    ) + "".join(
        metric(
            f"{name}_dropped_packets_total",
            "counter",
            f"Number of packets {verb} other nodes that were dropped",
            (
                (f'{{reason="{reason}"}}', sum(counters.get(counter, 0) for counter in names))
                for reason, names in _DROPS[name].items()
            ),
        )
        for name, _, verb in _DIRECTIONS
    )


def metric(name: str, kind: str, text: str, values: Iterable[tuple[str, int]]) -> str:
    """A metric in Prometheus' text format; each value with its labels, ``""`` for none."""
    lines = "".join(f"tailscaled_{name}{labels} {value}\n" for labels, value in values)
    return f"# TYPE tailscaled_{name} {kind}\n# HELP tailscaled_{name} {text}\n{lines}"
