"""How many packet threads there are."""

from __future__ import annotations

import pytest

from meshd._fast.plane import Plane
from meshd.base.errors import MeshdError
from meshd.daemon.queues import MAX_QUEUES, packet_queues


@pytest.mark.parametrize(
    ("cpus", "queues"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (7, 3), (8, 4), (16, 8), (17, 8), (256, 8)]
)
def test_queues_follow_the_cpus(cpus: int, queues: int) -> None:
    assert packet_queues({}, cpus) == queues


def test_queues_of_this_machine_are_possible() -> None:
    assert 1 <= packet_queues({}) <= MAX_QUEUES


@pytest.mark.parametrize("value", ["1", "2", "8"])
def test_queues_variable_overrides_the_cpus(value: str) -> None:
    assert packet_queues({"MESHD_QUEUES": value}, 1) == int(value)


def test_queues_variable_empty_is_not_set() -> None:
    assert packet_queues({"MESHD_QUEUES": ""}, 8) == 4


@pytest.mark.parametrize("value", ["0", "9", "-1", "two", "1.5", " 2", "\u0662", "99999999999999999999"])
def test_queues_variable_bad_is_a_clear_error(value: str) -> None:
    with pytest.raises(MeshdError) as refused:
        packet_queues({"MESHD_QUEUES": value}, 1)
    assert refused.value.code == "usage"
    assert "from 1 to 8" in refused.value.message


def test_queues_are_as_many_as_the_data_plane_takes() -> None:
    Plane(tun_fds=[], udp4_fd=[3] * MAX_QUEUES, udp6_fd=-1)
    with pytest.raises(ValueError, match=str(MAX_QUEUES)):
        Plane(tun_fds=[], udp4_fd=[3] * (MAX_QUEUES + 1), udp6_fd=-1)
