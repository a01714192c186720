"""Opening a TUN: what is given up when the kernel lacks it, and what the user is told."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from meshd._fast import tunio
from meshd.base.errors import MeshdError
from meshd.io import tun


class Kernel:
    """Stands in for the TUN driver: descriptors are pipes, features are chosen by the test."""

    def __init__(self) -> None:
        self.vnet_header = self.multi_queue = True
        self.made_for_several = False
        self.offload = tunio.OFFLOAD_CSUM | tunio.OFFLOAD_TSO | tunio.OFFLOAD_USO
        self.refusal = 0
        self.opened: list[int] = []

    def open(self, path: str, flags: int) -> int:
        assert path == tun.CLONE_DEVICE
        assert flags & os.O_NONBLOCK
        if self.refusal == errno.ENOENT:
            raise FileNotFoundError(errno.ENOENT, "missing", path)
        fd = os.eventfd(0)
        self.opened.append(fd)
        return fd

    def attach(self, fd: int, name: str, *, vnet_header: bool = True, multi_queue: bool = False) -> str:
        assert fd in self.opened
        if self.refusal:
            raise OSError(self.refusal, "refused", name)
        if (vnet_header and not self.vnet_header) or (multi_queue and not self.multi_queue):
            raise OSError(errno.EINVAL, "unknown flag", name)
        if self.made_for_several and not multi_queue:
            raise OSError(errno.EINVAL, "other flags", name)
        return name.replace("%d", "0")

    def set_offload(self, fd: int, features: int) -> bool:
        return not features & ~self.offload

    def open_count(self) -> int:
        count = 0
        for fd in self.opened:
            try:
                os.fstat(fd)
            except OSError:
                continue
            count += 1
        return count


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel()
    monkeypatch.setattr(tun.os, "open", made.open)
    monkeypatch.setattr(tunio, "attach", made.attach)
    monkeypatch.setattr(tunio, "set_offload", made.set_offload)
    yield made
    assert made.open_count() == 0


def test_open_tun_all_features() -> None:
    assert tunio.OFFLOAD_CSUM | tunio.OFFLOAD_TSO | tunio.OFFLOAD_USO == 0x67


def test_open_tun_modern_kernel_uses_everything(kernel: Kernel) -> None:
    device = tun.open_tun("mesh%d", queues=2)
    assert (device.name, len(device.fds), device.fd) == ("mesh0", 2, device.fds[0])
    assert device.vnet_header
    assert device.tcp_offload
    assert device.udp_offload
    device.close()
    device.close()


def test_open_tun_without_udp_segmentation_keeps_tcp(kernel: Kernel) -> None:
    kernel.offload &= ~tunio.OFFLOAD_USO
    device = tun.open_tun("mesh0")
    assert (device.tcp_offload, device.udp_offload) == (True, False)
    device.close()


def test_open_tun_without_queues_uses_one(kernel: Kernel) -> None:
    kernel.multi_queue = False
    device = tun.open_tun("mesh0", queues=4)
    assert len(device.fds) == 1
    assert device.vnet_header
    device.close()


def test_open_tun_made_for_several_queues_takes_one(kernel: Kernel) -> None:
    """``ip tuntap add mesh0 mode tun multi_queue`` by an administrator."""
    kernel.made_for_several = True
    device = tun.open_tun("mesh0")
    assert len(device.fds) == 1
    assert device.vnet_header
    device.close()


def test_open_tun_without_header_uses_plain_packets(kernel: Kernel) -> None:
    kernel.vnet_header = kernel.multi_queue = False
    device = tun.open_tun("mesh0", queues=2)
    assert (device.vnet_header, device.tcp_offload, device.udp_offload) == (False, False, False)
    device.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "load the tun module"),
        (errno.EPERM, "CAP_NET_ADMIN"),
        (errno.EBUSY, "another process"),
        (errno.EINVAL, "of another kind"),
    ],
)
def test_open_tun_refused_says_what_to_do(kernel: Kernel, number: int, words: str) -> None:
    kernel.refusal = number
    with pytest.raises(MeshdError) as caught:
        tun.open_tun("mesh0")
    assert "mesh0" in caught.value.message
    assert words in (caught.value.hint or "")


def test_attach_name_too_long_raises() -> None:
    with pytest.raises(ValueError, match="15 bytes"):
        tunio.attach(0, "a-name-that-is-too-long")


def test_attach_no_tun_descriptor_raises() -> None:
    with open(os.devnull) as file, pytest.raises(OSError, match="mesh0"):
        tunio.attach(file.fileno(), "mesh0")
