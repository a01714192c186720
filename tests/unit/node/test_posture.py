"""What tells one computer from another."""

from __future__ import annotations

from pathlib import Path

from meshd.node.posture import identity


def test_posture_serials_without_what_makers_write_who_write_none(tmp_path: Path) -> None:
    """C2N `/posture/identity`: serial numbers and addresses of devices."""
    assert identity(addresses=True, root=tmp_path) == {"SerialNumbers": None, "IfaceHardwareAddrs": None}
    dmi = tmp_path / "sys/class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "product_serial").write_text("S-1\n")
    (dmi / "board_serial").write_text("To be filled by O.E.M.\n")
    (dmi / "chassis_serial").write_text("S-1\n")
    for name, real, address in (
        ("eth0", True, "02:00:00:00:00:02"),
        ("eth1", True, "02:00:00:00:00:01"),
        ("lo", False, ""),
    ):
        interface = tmp_path / "sys/class/net" / name
        interface.mkdir(parents=True)
        (interface / "address").write_text(address + "\n")
        if real:
            (interface / "device").mkdir()
    assert identity(addresses=False, root=tmp_path) == {"SerialNumbers": ["S-1"]}
    found = identity(addresses=True, root=tmp_path)["IfaceHardwareAddrs"]
    assert found == ["02:00:00:00:00:01", "02:00:00:00:00:02"]


def test_posture_serial_number_of_the_policy_stands_for_the_machines(tmp_path: Path) -> None:
    """policy:DeviceSerialNumber: for machines whose manufacturer gave none."""
    assert identity(addresses=False, serial="A1", root=tmp_path) == {"SerialNumbers": ["A1"]}
    assert identity(addresses=True, serial="A1", root=tmp_path) == {"SerialNumbers": ["A1"], "IfaceHardwareAddrs": None}
