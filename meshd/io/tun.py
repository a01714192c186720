"""TUN devices: one interface with one or more packet queues."""

from __future__ import annotations

import errno
import os

from meshd._fast import tunio
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv

CLONE_DEVICE = "/dev/net/tun"

log = get_logger(__name__)


class TunDevice:
    """An open TUN interface. It vanishes with the last file descriptor, unless it was made persistent.

    fds: one non-blocking descriptor per queue. vnet_header: every read and write starts with a
    virtio-net header of 10 bytes. tcp_offload, udp_offload: segmentation the kernel leaves to us.
    """

    __slots__ = ("fds", "name", "tcp_offload", "udp_offload", "vnet_header")

    def __init__(
        self, fds: tuple[int, ...], name: str, *, vnet_header: bool, tcp_offload: bool, udp_offload: bool
    ) -> None:
        self.fds = fds
        self.name = name
        self.vnet_header = vnet_header
        self.tcp_offload = tcp_offload
        self.udp_offload = udp_offload

    @property
    def fd(self) -> int:
        """The first queue."""
        return self.fds[0]

    def close(self) -> None:
        """Close all queues; closing twice does nothing."""
        fds, self.fds = self.fds, ()
        for fd in fds:
            os.close(fd)


def open_tun(name: str, *, queues: int = 1) -> TunDevice:
    """Open the interface called name, creating it when there is none.

    Features the kernel lacks are given up one by one: multiple queues, the virtio-net header, TCP
    segmentation, UDP segmentation. Raises MeshdError with a hint when there can be no TUN at all.
    """
    first, name, vnet_header, several = _first_queue(name, several=queues > 1)
    fds = [first]
    try:
        while several and len(fds) < queues:
            fds.append(_queue(name, vnet_header=vnet_header, several=True)[0])
        tcp = vnet_header and tunio.set_offload(first, tunio.OFFLOAD_CSUM | tunio.OFFLOAD_TSO)
        udp = tcp and tunio.set_offload(first, tunio.OFFLOAD_CSUM | tunio.OFFLOAD_TSO | tunio.OFFLOAD_USO)
    except OSError as error:
        for fd in fds:
            os.close(fd)
        raise _refusal(name, error) from error
    log.debug("tun_opened", extra=kv(interface=name, queues=len(fds), vnet=vnet_header, tcp=tcp, udp=udp))
    return TunDevice(tuple(fds), name, vnet_header=vnet_header, tcp_offload=tcp, udp_offload=udp)


def _first_queue(name: str, *, several: bool) -> tuple[int, str, bool, bool]:
    # An interface that an administrator made with "multi_queue" takes nobody without, whatever we wanted.
    for vnet_header, multi in ((True, several), (True, not several), (False, False)):
        try:
            fd, actual = _queue(name, vnet_header=vnet_header, several=multi)
        except OSError as error:
            if error.errno != errno.EINVAL or not vnet_header:
                raise _refusal(name, error) from error
            continue
        return fd, actual, vnet_header, multi
    raise AssertionError("the last attempt returns or raises")


def _queue(name: str, *, vnet_header: bool, several: bool) -> tuple[int, str]:
    fd = os.open(CLONE_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return fd, tunio.attach(fd, name, vnet_header=vnet_header, multi_queue=several)
    except (OSError, ValueError):
        os.close(fd)
        raise


def _refusal(name: str, error: OSError) -> MeshdError:
    reason = os.strerror(error.errno or 0)
    hints = {
        errno.ENOENT: f"{CLONE_DEVICE} is missing: load the tun module, or pass the device to the container, "
        "or run with --tun=userspace-networking",
        errno.ENODEV: "the kernel has no TUN driver; run with --tun=userspace-networking",
        errno.EPERM: "creating an interface needs CAP_NET_ADMIN; run with --tun=userspace-networking without it",
        errno.EACCES: f"no permission for {CLONE_DEVICE}; run with --tun=userspace-networking without it",
        errno.EINVAL: f"if there is an interface {name} of another kind already, choose another name with --tun",
        errno.EBUSY: f"another process holds {name}; stop it or choose another name with --tun",
    }
    return MeshdError(
        f"cannot open the tunnel interface {name}: {reason}",
        code="tun",
        hint=hints.get(error.errno or 0),
        interface=name,
    )
