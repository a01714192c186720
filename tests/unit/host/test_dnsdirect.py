"""/etc/resolv.conf written by ourselves, and given back."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.core.dnscompile import OSConfig
from meshd.host.linux import dnsdirect
from meshd.host.linux.dnsdirect import DirectDNS
from meshd.host.linux.journal import Journal
from meshd.wire.resolvconf import MAX_BYTES, decode_resolv_conf, is_ours
from tests.unit.node.killpoints import kill_everywhere

OURS = OSConfig((ip_address("100.100.100.100"),), ("mesh.test", "lan.test"))
BEFORE = b"# by hand\r\nnameserver 192.168.1.1\nsearch lan.test\noptions ndots:3 edns0\n\xff no newline at the end"

Shape = tuple[Any, ...]


def shape(path: Path) -> Shape:
    """Everything that anybody could see of a path."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return ("none",)
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path), shape(path.parent / os.readlink(path)))
    return ("file", path.read_bytes(), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)


def a_file(folder: Path) -> None:
    path = folder / "resolv.conf"
    path.write_bytes(BEFORE)
    path.chmod(0o664)
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    if os.geteuid() == 0:
        os.chown(path, 12, 34)


def a_link(folder: Path) -> None:
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run/stub.conf").write_bytes(BEFORE)
    (folder / "resolv.conf").symlink_to("run/stub.conf")


def a_dangling_link(folder: Path) -> None:
    (folder / "run").mkdir(exist_ok=True)
    (folder / "resolv.conf").symlink_to("run/not-yet.conf")


def an_empty_file(folder: Path) -> None:
    (folder / "resolv.conf").write_bytes(b"")


def nothing(folder: Path) -> None:
    pass


SHAPES = [a_file, a_link, a_dangling_link, an_empty_file, nothing]


@pytest.fixture(params=["rename", "in place"])
def in_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A folder that takes no new file, or a file that is a mount, as in containers: writing into it is all there is."""
    if request.param == "in place":
        monkeypatch.setattr(dnsdirect, "is_mount_point", lambda _path: True)
    return bool(request.param == "in place")


def direct(folder: Path, *, journal: bool = True) -> DirectDNS:
    return DirectDNS(Journal(folder / "journal.json" if journal else None), folder / "resolv.conf")


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.usefixtures("in_place")
def test_apply_and_close_leave_everything_as_it_was(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """DN-11: direct, with the original kept."""
    make(tmp_path)
    path, before, names = tmp_path / "resolv.conf", shape(tmp_path / "resolv.conf"), set(os.listdir(tmp_path))
    dns = direct(tmp_path)
    base = dns.base()
    dns.apply(OURS)
    conf = decode_resolv_conf(path.read_bytes())
    assert conf.nameservers == ("100.100.100.100",)
    assert conf.search == ("mesh.test", "lan.test")
    assert dns.base() == base
    assert not dns.lost()
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    dns.apply(OSConfig((ip_address("10.9.9.9"),)))  # a change in between
    assert dns.base() == base
    dns.close()
    assert shape(path) == before
    assert set(os.listdir(tmp_path)) == names
    assert Journal(tmp_path / "journal.json").dns is None


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.usefixtures("in_place")
def test_empty_config_leaves_everything_as_it_was(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """DN-02: nothing is touched while there is nothing to say, and all given back when there no longer is."""
    make(tmp_path)
    before = shape(tmp_path / "resolv.conf")
    dns = direct(tmp_path)
    dns.apply(OSConfig())
    assert shape(tmp_path / "resolv.conf") == before
    dns.apply(OURS)
    dns.apply(OSConfig())
    assert shape(tmp_path / "resolv.conf") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "journal"), [(a_file, True), (a_link, True), (a_dangling_link, True), (nothing, True), (a_file, False)]
)
def test_killed_at_any_point_then_cleaned_up_is_as_it_was(
    tmp_path: Path, make: Callable[[Path], None], *, in_place: bool, journal: bool
) -> None:
    """DN-11: kills at every step of applying, changing and giving back."""
    del in_place
    folder, state = tmp_path / "etc", tmp_path / "journal.json"
    path = folder / "resolv.conf"
    shapes: list[Shape] = []

    def prepare() -> None:
        state.unlink(missing_ok=True)
        if folder.exists():
            for entry in sorted(folder.rglob("*"), reverse=True):
                entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        folder.mkdir(exist_ok=True)
        make(folder)
        shapes[:] = [shape(path)]

    def work() -> None:
        dns = DirectDNS(Journal(state if journal else None), path)
        dns.apply(OURS)
        dns.apply(OSConfig((ip_address("10.9.9.9"),), ("other.test",)))
        dns.close()

    for point in kill_everywhere(prepare, work):
        DirectDNS(Journal(state if journal else None), path).close()
        if not journal:
            # Nobody knows then that empty lines at its end, or its time, come from a kill while it was given back.
            assert path.read_bytes().rstrip(b"\n") == BEFORE, point
            continue
        assert shape(path) == shapes[0], point
        assert not list(folder.glob(".resolv*")), point


def test_base_and_options_of_the_original_stay(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_bytes(BEFORE)
    dns = direct(tmp_path)
    dns.apply(OURS)
    assert decode_resolv_conf((tmp_path / "resolv.conf").read_bytes()).options == ("options ndots:3 edns0",)


def test_search_domains_alone_keep_the_resolvers(tmp_path: Path) -> None:
    """A file without name servers would send every question to this host itself."""
    (tmp_path / "resolv.conf").write_bytes(BEFORE)
    direct(tmp_path).apply(OSConfig(search_domains=("mesh.test",)))
    conf = decode_resolv_conf((tmp_path / "resolv.conf").read_bytes())
    assert (conf.nameservers, conf.search) == (("192.168.1.1",), ("mesh.test", "lan.test"))


def test_base_never_names_ourselves_nor_another_mesh(tmp_path: Path) -> None:
    """A dead tailscaled's file names the address that is ours now."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"# resolv.conf(5) file generated by tailscale\nnameserver 100.100.100.100\nsearch old.ts.net\n")
    (tmp_path / "resolv.pre-tailscale-backup.conf").write_bytes(b"nameserver 9.9.9.9\n")
    assert direct(tmp_path).base() == OSConfig((ip_address("9.9.9.9"),))
    path.write_bytes(b"nameserver fd7a:115c:a1e0::53\nnameserver 10.0.0.1\n")
    assert direct(tmp_path).base() == OSConfig((ip_address("10.0.0.1"),))


@pytest.mark.usefixtures("in_place")
def test_overwritten_by_others_is_noticed_and_becomes_the_original(tmp_path: Path) -> None:
    """DN-11: trampling. What a DHCP client writes are the resolvers of the network that the host is in now.
    (file:/etc/resolv.conf)."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(BEFORE)
    dns = direct(tmp_path)
    dns.apply(OURS)
    path.write_bytes(b"nameserver 172.16.0.1\n")
    assert dns.lost()
    assert dns.base() == OSConfig((ip_address("172.16.0.1"),))
    dns.apply(OURS)
    assert not dns.lost()
    dns.close()
    assert path.read_bytes() == b"nameserver 172.16.0.1\n"


@pytest.mark.usefixtures("in_place")
def test_overwritten_and_not_taken_back_stays_what_others_wrote(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(BEFORE)
    dns = direct(tmp_path)
    dns.apply(OURS)
    path.unlink()
    path.write_bytes(b"nameserver 172.16.0.1\n")
    dns.close()
    assert path.read_bytes() == b"nameserver 172.16.0.1\n"
    assert Journal(tmp_path / "journal.json").dns is None


def test_what_is_no_file_is_refused_with_a_message(tmp_path: Path) -> None:
    """A pipe would hold us for ever, a device lie."""
    path = tmp_path / "resolv.conf"
    os.mkfifo(path)
    with pytest.raises(MeshdError, match="is no file"):
        direct(tmp_path).apply(OURS)
    path.unlink()
    path.mkdir()
    with pytest.raises(MeshdError, match="is no file"):
        direct(tmp_path).base()
    path.rmdir()
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(MeshdError, match="no resolver configuration"):
        direct(tmp_path).apply(OURS)
    path.unlink()
    path.symlink_to("resolv.conf")
    with pytest.raises(MeshdError, match="cannot read"):
        direct(tmp_path).apply(OURS)


def test_disk_full_while_writing_in_place_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(BEFORE)
    monkeypatch.setattr(dnsdirect, "is_mount_point", lambda _path: True)
    genuine, calls = os.pwrite, []

    def full(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 1:
            return genuine(descriptor, data[:20], offset)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return genuine(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MeshdError, match=r"cannot write .*No space left"):
        direct(tmp_path).apply(OURS)
    assert path.read_bytes() == BEFORE


def test_folder_that_takes_no_file_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-11: falls back from rename to writing in place (containers)."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(BEFORE)
    inode = path.stat().st_ino

    def busy(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    dns = DirectDNS(Journal(None), path)
    dns.apply(OURS)
    assert is_ours(path.read_bytes())
    dns.close()
    assert (path.read_bytes(), path.stat().st_ino) == (BEFORE, inode)
    assert os.listdir(tmp_path) == ["resolv.conf"]


def test_service_that_may_not_give_files_away_keeps_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the systemd unit runs us: without CAP_CHOWN."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a file of another user")
    a_file(tmp_path)
    path, before = tmp_path / "resolv.conf", shape(tmp_path / "resolv.conf")
    inode = path.stat().st_ino

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    dns = direct(tmp_path)
    dns.apply(OURS)
    assert is_ours(path.read_bytes())
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_ino) == (12, 34, inode)
    dns.close()
    assert shape(path) == before
    assert not list(tmp_path.glob(".resolv*"))
