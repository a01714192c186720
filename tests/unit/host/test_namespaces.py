"""Whether a file is this host's own or the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshd.host.linux.namespaces import is_foreign, is_mount_point, stands_apart


class World:
    """A /proc with two network namespaces, and one file that is seen at two places."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.named = folder / "proc", folder / "netns"
        for process in ("self", "1"):
            (self.proc / process / "ns").mkdir(parents=True)
        (self.proc / "1/root").mkdir()
        self.named.mkdir()
        self.file = folder / "resolv.conf"
        self.file.write_text("nameserver 10.0.0.1\n")
        (self.proc / "self/ns/net").write_text("ours")
        self.mounts("24 1 0:22 / / rw - ext4 /dev/sda1 rw")

    def mounts(self, *lines: str) -> None:
        (self.proc / "self/mountinfo").write_text("\n".join(lines) + "\n")

    def first_process(self, *, same_network: bool, same_file: bool) -> None:
        net = self.proc / "1/ns/net"
        if same_network:
            os.link(self.proc / "self/ns/net", net)
        else:
            net.write_text("another")
        theirs = self.proc / "1/root" / str(self.file).lstrip("/")
        theirs.parent.mkdir(parents=True)
        if same_file:
            os.link(self.file, theirs)
        else:
            theirs.write_text("nameserver 10.0.0.1\n")

    def foreign(self) -> bool:
        return is_foreign(self.file, self.proc, self.named)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("same_network", "same_file", "foreign"),
    [
        (True, True, False),  # an ordinary host, and a container with its own first process
        (True, False, False),
        (False, False, False),  # ip netns exec with a file in /etc/netns
        (False, True, True),  # ip netns exec without one
    ],
)
def test_foreign_only_the_machines_file_in_another_network(
    world: World, same_network: bool, same_file: bool, foreign: bool
) -> None:
    """DN-11: a namespace must not change the DNS of the machine around it."""
    world.first_process(same_network=same_network, same_file=same_file)
    assert world.foreign() is foreign
    assert stands_apart(world.proc, world.named) is not same_network


def test_foreign_through_a_link_is_noticed(world: World, tmp_path: Path) -> None:
    world.first_process(same_network=False, same_file=True)
    link = tmp_path / "link.conf"
    link.symlink_to(world.file)
    assert is_foreign(link, world.proc, world.named)


@pytest.mark.parametrize("same_folder", [True, False])
def test_foreign_file_that_is_not_there_is_that_of_its_folder(world: World, tmp_path: Path, same_folder: bool) -> None:
    """DN-11: systemd-resolved was stopped, and its link leads nowhere; the machine got our resolver instead."""
    world.first_process(same_network=False, same_file=False)
    folder = tmp_path / "etc"
    folder.mkdir()
    theirs = world.proc / "1/root" / str(folder).lstrip("/")
    if same_folder:
        theirs.symlink_to(folder)
    else:
        theirs.mkdir()
    assert is_foreign(folder / "resolv.conf", world.proc, world.named) is same_folder
    (folder / "resolv.conf").symlink_to("../run/none")
    assert is_foreign(folder / "resolv.conf", world.proc, world.named) is same_folder


def test_first_process_hidden_goes_by_names_and_mounts(world: World) -> None:
    """Where /proc/1 cannot be looked into, a namespace of ip-netns(8) must have the file mounted."""
    os.unlink(world.proc / "self/ns/net")
    (world.proc / "self/ns/net").symlink_to(world.named / "blue")
    (world.proc / "1/ns/net").symlink_to("net")  # an error that is not "missing"
    (world.proc / "1/root").rmdir()
    (world.proc / "1/root").symlink_to("root")
    assert not stands_apart(world.proc, world.named)
    (world.named / "blue").write_text("")
    assert stands_apart(world.proc, world.named)
    assert world.foreign()
    world.mounts(f"99 24 0:22 /etc/netns/blue/resolv.conf {world.file} rw - ext4 /dev/sda1 rw")
    assert not world.foreign()


def test_mount_point_is_found_by_its_exact_place(world: World, tmp_path: Path) -> None:
    spaced = tmp_path / "a b.conf"
    world.mounts(f"1 0 0:1 / {tmp_path}/a\\040b.conf rw - tmpfs tmpfs rw", "broken line")
    assert is_mount_point(spaced, world.proc)
    assert not is_mount_point(tmp_path, world.proc)
    assert not is_mount_point(spaced, tmp_path / "none")
