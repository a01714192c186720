"""The kernels on both ends leave segmentation and merging to the data plane."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from perf.path.plane_pair import ends, iperf, network

pytestmark = pytest.mark.netns


_LOSE_A_PACKET = """
import fcntl, os, socket, struct, subprocess, time
from meshd._fast import plane, tunio
fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
tunio.attach(fd, "lossy0")
for change in ("addr add 100.64.0.1/24 dev lossy0", "link set lossy0 up"):
    subprocess.run(["ip", *change.split()], check=True)
made = plane.Plane(tun_fds=[fd], udp4_fd=-1, udp6_fd=-1)
made.start()
host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def send(counter):
    before = made.counters()[counter]
    deadline = time.monotonic() + 10
    host.sendto(b"q", ("100.64.0.2", 9))
    while made.counters()[counter] == before:
        assert time.monotonic() < deadline, made.counters()
        time.sleep(0.01)
def header_bytes(n):
    fcntl.ioctl(fd, 0x400454D8, struct.pack("i", n))  # TUNSETVNETHDRSZ
send("out_no_route")
header_bytes(1 << 20)
send("out_malformed")
header_bytes(10)
send("out_no_route")
made.stop()
"""


def test_packet_that_the_kernel_cannot_hand_over_is_lost_alone() -> None:
    """EINVAL for one packet ended the queue; the kernel says it of packets with an unknown kind of offload, too."""
    subprocess.run(["unshare", "-n", sys.executable, "-c", _LOSE_A_PACKET], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not on PATH")
def test_super_packets_cross_in_few_system_calls() -> None:
    """Segmentation and merging are left to us by both kernels, and to the kernels by us."""
    with network(), ends(None) as programs:
        result = iperf(programs, 1)
        programs[0].terminate()
        counts = json.loads(programs[0].communicate(timeout=10)[0])
    packets = result["gbit_s"] * 1e9 / 8 / 1280
    assert counts["tun_reads"] < packets / 5
    assert counts["udp_writes"] < packets / 5
