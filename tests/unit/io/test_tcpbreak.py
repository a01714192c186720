"""Cutting TCP connections: in a process of its own, for the sake of everybody else's."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, socket
from meshd.io.tcpbreak import break_connections
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
far, _ = listener.accept()
left, right = socket.socketpair()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
assert break_connections() == 2, "both ends of the TCP connection"
assert near.recv(1) == b"" and far.recv(1) == b""
left.send(b"x")
assert right.recv(1) == b"x", "others are left alone"
again = socket.create_connection(listener.getsockname())
held = len(os.listdir("/proc/self/fd"))
assert break_connections() >= 1
assert len(os.listdir("/proc/self/fd")) == held, "nor does a copy of a descriptor stay"
"""


def test_break_connections_ends_tcp_and_nothing_else() -> None:
    """DB-02."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
