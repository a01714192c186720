"""Listening ports of a host that exists as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.host.linux.portlist import OpenPort, PortList

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(address: str, port: int, inode: int, state: str = "0A") -> str:
    queues = "00000000:00000000 00:00000000 00000000"
    return f"   0: {address}:{port:04X} 00000000:0000 {state} {queues}     0        0 {inode} 1\n"


def host(root: Path, tcp: str, tcp6: str | None = None) -> Path:
    (root / "net").mkdir(parents=True, exist_ok=True)
    (root / "net/tcp").write_text(HEAD + tcp)
    if tcp6 is not None:
        (root / "net/tcp6").write_text(HEAD + tcp6)
    return root


def process(root: Path, pid: int, command: bytes, *inodes: int) -> None:
    files = root / str(pid) / "fd"
    files.mkdir(parents=True)
    (root / str(pid) / "cmdline").write_bytes(command)
    for number, inode in enumerate(inodes):
        (files / str(number)).symlink_to(f"socket:[{inode}]")


def test_portlist_tells_open_ports_with_their_programs(tmp_path: Path) -> None:
    """MI-01: listening TCP ports of both families, not those of localhost; names without arguments and paths."""
    tcp = line("00000000", 22, 11) + line("0100007F", 631, 12) + line("0200007F", 632, 13) + line("0A00000A", 80, 14)
    tcp += line("0A00000A", 81, 15, "01")
    tcp6 = line("0" * 32, 22, 16) + line("00000000000000000000000001000000", 5432, 17) + line("0" * 32, 9000, 18)
    root = host(tmp_path, tcp, tcp6)
    process(root, 100, b"/usr/sbin/sshd -D [listener] 0 of 10\0", 11, 16)
    process(root, 200, b"nginx: master process\0", 14, 99)
    assert PortList(root).read() == (OpenPort(22, "sshd"), OpenPort(80, "nginx"), OpenPort(9000, ""))


def test_portlist_looks_for_a_program_once(tmp_path: Path) -> None:
    """MI-01: kinder to the host: processes are searched for new sockets only."""
    root = host(tmp_path, line("00000000", 22, 11))
    process(root, 100, b"sshd\0", 11)
    ports = PortList(root)
    assert ports.read() == (OpenPort(22, "sshd"),)
    (root / "100/cmdline").unlink()
    assert ports.read() == (OpenPort(22, "sshd"),)
    host(tmp_path, "")
    assert ports.read() == ()


@pytest.mark.parametrize("text", ["garbage\n", "a b c d e f g h i j\n", ""])
def test_portlist_odd_tables_are_empty(tmp_path: Path, text: str) -> None:
    """MI-01."""
    assert PortList(host(tmp_path, text)).read() == ()


def test_portlist_of_this_host_can_be_read() -> None:
    """MI-01: the real files."""
    for entry in PortList().read():
        assert 0 < entry.port < 65536
