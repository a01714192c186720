"""What programs keep with a profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.node.keptthings import KeptThings
from meshd.node.profiledata import ProfileData


def test_kept_things_belong_to_a_profile_and_go_with_it(tmp_path: Path) -> None:
    """api:pins, prefs/service-clients: kept on disk, each profile its own, removed with the profile."""
    data, profile = ProfileData(tmp_path), ["a1"]
    kept = KeptThings(data, lambda: profile[0])
    assert kept.read("favorites") == {}
    kept.write("favorites", {"Devices": [{"ID": "n1"}]})
    assert KeptThings(data, lambda: "a1").read("favorites") == {"Devices": [{"ID": "n1"}]}
    profile[0] = "b2"
    assert kept.read("favorites") == {}
    data.remove("a1")
    assert KeptThings(data, lambda: "a1").read("favorites") == {}


def test_kept_things_without_a_place_say_so(tmp_path: Path) -> None:
    for kept in (KeptThings(ProfileData(None), lambda: "a1"), KeptThings(ProfileData(tmp_path), lambda: "")):
        assert kept.read("favorites") == {}
        with pytest.raises(MeshdError, match="nothing can be kept"):
            kept.write("favorites", {})


def test_kept_things_damaged_file_is_as_none(tmp_path: Path) -> None:
    kept = KeptThings(ProfileData(tmp_path), lambda: "a1")
    kept.write("favorites", {})
    path = tmp_path / "profile-data" / "a1" / "favorites.json"
    assert path.stat().st_mode & 0o777 == 0o600
    for garbage in (b"", b"[1]", b"\xff", b"{" * 100):
        path.write_bytes(garbage)
        assert kept.read("favorites") == {}
