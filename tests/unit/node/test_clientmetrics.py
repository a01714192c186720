"""Metrics of local programs."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.node.clientmetrics import MAX_METRICS, ClientMetrics


def test_client_metrics_count_and_set() -> None:
    metrics = ClientMetrics()
    metrics.update([{"name": "a_b", "type": "counter", "value": 2}], ())
    metrics.update([{"name": "a_b", "type": "counter", "value": 3}, {"name": "g", "type": "gauge", "value": 7}], ())
    metrics.update([{"name": "g", "value": 1, "op": "set"}], ())
    assert metrics.text() == "# TYPE a_b counter\na_b 5\n# TYPE g gauge\ng 1\n"


@pytest.mark.parametrize(
    "update",
    [
        {"name": "bad name", "type": "counter", "value": 1},
        {"name": "x\n# HELP", "type": "counter", "value": 1},
        {"name": "ours", "type": "counter", "value": 1},
        {"name": "a", "type": "histogram", "value": 1},
        {"name": "a", "type": "counter", "value": "1"},
        {"name": "a", "type": "counter", "value": 1, "op": "mul"},
        {"type": "counter"},
        7,
    ],
)
def test_client_metrics_bad_update_changes_nothing(update: Any) -> None:
    """The reference drops the connection on a bad name; here it is an error like any other."""
    metrics = ClientMetrics()
    with pytest.raises(MeshdError) as caught:
        metrics.update([{"name": "good", "type": "counter", "value": 1}, update], {"ours"})
    assert caught.value.code == "invalid"
    assert metrics.text() == ""


def test_client_metrics_are_bounded() -> None:
    metrics = ClientMetrics()
    with pytest.raises(MeshdError, match="too many"):
        metrics.update([{"name": f"m{n}", "type": "gauge", "value": 0} for n in range(MAX_METRICS + 1)], ())
