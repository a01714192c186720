"""What is left to the kernel, and what is not."""

from __future__ import annotations

import pytest

from meshd._fast.plane import Plane
from meshd.base.errors import MeshdError
from meshd.daemon.offload import (
    Offload,
    OffloadChoice,
    choose_offload,
    corrupts_equal_segments,
    kernel_version,
    lacks_udp_gro,
)

GOOD = "6.12.9"


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-18-amd64", (6, 1, 0)),
        ("7.0", (7, 0, 0)),
        ("7.1.4-1.fc45.x86_64", (7, 1, 4)),
        ("7.0-rc3", (7, 0, 0)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15, 167)),
        ("10.20.30", (10, 20, 30)),
        ("", None),
        ("7", None),
        ("next-20261101", None),
        ("\u0667.1.4", None),
        ("9" * 5000 + ".1", None),
    ],
)
def test_kernel_version_is_the_leading_numbers(release: str, version: tuple[int, int, int] | None) -> None:
    assert kernel_version(release) == version


@pytest.mark.parametrize(
    ("release", "faulty"),
    [
        ("6.99.99", False),
        ("7.0.0", True),
        ("7.0", True),
        ("7.0.57-generic", True),
        ("7.1.4", True),
        ("7.1.5", False),
        ("7.1.40", False),
        ("7.2.0-rc1", False),
        ("17.1.4", False),
        ("unknown", False),
    ],
)
def test_kernels_with_the_equal_segments_fault_are_known(release: str, faulty: bool) -> None:
    assert corrupts_equal_segments(release) is faulty
    choice = choose_offload({}, release)
    assert choice.offload.equal_tail is not faulty
    assert choice.reasons == ((f"equal_tail: kernel {release}",) if faulty else ())


def test_kernels_without_sound_udp_gro_are_known() -> None:
    assert [lacks_udp_gro(release) for release in ("4.19.0", "5.11.22", "5.12.0", "6.1.0")] == [
        True,
        True,
        False,
        False,
    ]
    assert choose_offload({}, "5.10.0-33-amd64").offload == Offload(udp_gro=False)


def test_offload_is_all_on_by_default() -> None:
    assert choose_offload({}, GOOD) == choose_offload({"TS_TUN_DISABLE_UDP_GRO": "false"}, GOOD)
    assert choose_offload({}, GOOD).offload == Offload()
    assert choose_offload({}, GOOD).reasons == ()


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("TS_TUN_DISABLE_UDP_GRO", Offload(tun_udp_gro=False)),
        ("TS_TUN_DISABLE_TCP_GRO", Offload(tun_tcp_gro=False)),
        ("TS_DEBUG_DISABLE_UDP_GRO", Offload(udp_gro=False)),
        ("TS_DEBUG_DISABLE_UDP_GSO", Offload(udp_gso=False)),
    ],
)
@pytest.mark.parametrize("value", ["1", "true", "T"])
def test_offload_variables_switch_off(variable: str, expected: Offload, value: str) -> None:
    """Environment of features 4.4."""
    choice = choose_offload({variable: value}, GOOD)
    assert choice.offload == expected
    assert len(choice.reasons) == 1
    assert variable in choice.reasons[0]


def test_offload_variable_that_is_no_boolean_is_a_clear_error() -> None:
    with pytest.raises(MeshdError) as refused:
        choose_offload({"TS_DEBUG_DISABLE_UDP_GSO": "yes please"}, GOOD)
    assert refused.value.code == "usage"
    assert "TS_DEBUG_DISABLE_UDP_GSO=yes please" in refused.value.message


def test_offload_is_what_the_data_plane_takes() -> None:
    Plane(tun_fds=[], udp4_fd=-1, udp6_fd=-1).set_offload(**Offload().arguments())


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("disable-udp-gro", Offload(udp_gro=False)),
        ("disable-udp-gso", Offload(udp_gso=False)),
        ("disable-tun-udp-gro", Offload(tun_udp_gro=False)),
        ("disable-tun-tcp-gro", Offload(tun_tcp_gro=False)),
        ("never-gso-equal-tail", Offload(equal_tail=False)),
    ],
)
def test_offload_attributes_of_the_network_switch_off(attribute: str, expected: Offload) -> None:
    """The attributes of the parameters; what the environment says comes first."""
    choice = choose_offload({}, GOOD, {attribute: None})
    assert choice == OffloadChoice(expected, (f"{choice.reasons[0].partition(':')[0]}: attribute {attribute}",))
    assert choose_offload({}, GOOD, {"other": None}).reasons == ()


def test_offload_environment_and_attribute_are_one_reason() -> None:
    choice = choose_offload({"TS_DEBUG_DISABLE_UDP_GRO": "1"}, GOOD, {"disable-udp-gro"})
    assert choice.reasons == ("udp_gro: TS_DEBUG_DISABLE_UDP_GRO",)
