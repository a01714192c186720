"""Which interface is opened."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.daemon import hostpart
from meshd.daemon.flags import Flags
from meshd.daemon.hostpart import open_host
from meshd.host.linux import rtnetlink
from meshd.io import tun


def test_tun_list_is_tried_in_order_and_each_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """DM-02, flag:--tun."""
    tried = []

    def open_tun(part: Any, name: str, *_: Any) -> None:
        tried.append(name)
        if name != "good0":
            raise MeshdError(f"{name} is busy")

    monkeypatch.setattr(hostpart, "_open_tun", open_tun)
    open_host(Flags(tun="bad0,good0,never0"), None).close()  # type: ignore[arg-type]
    assert tried == ["bad0", "good0"]
    with pytest.raises(MeshdError, match="cannot open a tunnel interface: bad0: bad0 is busy; bad1: bad1 is busy"):
        open_host(Flags(tun="bad0,bad1"), None)  # type: ignore[arg-type]


def test_tun_failure_keeps_its_own_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """DM-02: in a container it is the device or the capability that is missing, not root."""

    def open_tun(part: Any, name: str, *_: Any) -> None:
        raise MeshdError(f"cannot open {name}", hint=f"pass the device of {name} to the container")

    monkeypatch.setattr(hostpart, "_open_tun", open_tun)
    with pytest.raises(MeshdError) as failed:
        open_host(Flags(tun="mesh0"), None)  # type: ignore[arg-type]
    assert str(failed.value) == "cannot open mesh0\npass the device of mesh0 to the container"
    with pytest.raises(
        MeshdError, match="mesh0: cannot open mesh0; mesh1: cannot open mesh1\npass the device of mesh1"
    ):
        open_host(Flags(tun="mesh0,mesh1"), None)  # type: ignore[arg-type]


def test_tun_in_a_sandbox_without_netlink_says_what_to_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """DM-02: as with RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX; it was an internal error."""

    def open_tun(part: Any, name: str, *_: Any) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(hostpart, "_open_tun", open_tun)
    with pytest.raises(MeshdError, match="cannot configure the tunnel interface mesh0: Address family") as failed:
        open_host(Flags(tun="mesh0"), None)  # type: ignore[arg-type]
    assert "AF_NETLINK" in (failed.value.hint or "")
    assert open_host(Flags(tun="mesh0,userspace-networking"), None).tun is None  # type: ignore[arg-type]


def test_tun_that_another_process_shares_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """DM-02: of an interface with several queues the kernel gives one to everybody, with a part of the packets."""

    class Device:
        name, fds, closed = "mesh0", (7, 8), False

        def close(self) -> None:
            self.closed = True

    class Kernel:
        def interface_index(self, _: str) -> int:
            return 3

        def tun_queues(self, index: int) -> int:
            assert index == 3
            return 4

        def close(self) -> None: ...

    device = Device()
    monkeypatch.setattr(tun, "open_tun", lambda *_, **__: device)
    monkeypatch.setattr(rtnetlink, "RtNetlink", Kernel)
    with pytest.raises(MeshdError, match="another process holds it") as failed:
        open_host(Flags(tun="mesh0"), None, queues=2)  # type: ignore[arg-type]
    assert "--tun" in (failed.value.hint or "")
    assert device.closed


def test_tun_list_that_ends_in_userspace_networking_always_works() -> None:
    """DM-02: names that are none, and TAP, are no reason to stop."""
    part = open_host(Flags(tun="a/b,tap:x,userspace-networking"), None)  # type: ignore[arg-type]
    assert (part.tun, part.router, part.tun_fds) == (None, None, [])
    part.close()
