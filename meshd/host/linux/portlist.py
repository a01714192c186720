"""Which TCP ports of this host are open to others, and which programs listen there (proc(5), `/proc/net/tcp`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_LISTEN = b"0A"
_V6_LOCALHOST = b"00000000000000000000000001000000"
_V4_LOCAL_NET = b"7F"  # 127.0.0.0/8: the kernel prints the address as one number in host order
MAX_PORTS = 512  # more than that is a scanner's trap, not a list of services
MAX_NAME = 64


class OpenPort(NamedTuple):
    """A port at which a program listens; ``process`` is empty when it is not ours to know."""

    port: int
    process: str


class PortList:
    """Remembers which program holds which socket, so that looking again costs two small files."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._names: dict[bytes, str] = {}  # by inode

    def read(self) -> tuple[OpenPort, ...]:
        """By port, each once. OSError when the system does not tell."""
        inodes: dict[bytes, int] = {}
        for name in ("net/tcp", "net/tcp6"):
            try:
                with (self._root / name).open("rb") as file:
                    for inode, port in _listeners(file):
                        if len(inodes) < MAX_PORTS:
                            inodes[inode] = port
            except FileNotFoundError:
                continue  # a kernel without that family
        self._names = {inode: name for inode, name in self._names.items() if inode in inodes}
        unknown = inodes.keys() - self._names.keys()
        if unknown:
            self._names |= dict.fromkeys(unknown, "") | self._find(unknown)
        found: dict[int, str] = {}
        for inode, port in inodes.items():
            found[port] = found.get(port) or self._names[inode]
        return tuple(OpenPort(port, found[port]) for port in sorted(found))

    def _find(self, inodes: set[bytes]) -> dict[bytes, str]:
        """The programs behind sockets, as far as we may look into them."""
        wanted = {os.fsencode(f"socket:[{inode.decode()}]"): inode for inode in inodes}
        found: dict[bytes, str] = {}
        for process in os.listdir(self._root):
            if not process.isdigit():
                continue
            files = os.fsencode(self._root / process / "fd")
            try:
                names = os.listdir(files)
            except OSError:
                continue  # it ended, or belongs to someone else
            for name in names:
                try:
                    inode = wanted.get(os.readlink(os.path.join(files, name)))
                except OSError:
                    continue
                if inode is not None:
                    found[inode] = self._program(process)
            if len(found) == len(wanted):
                break
        return found

    def _program(self, process: str) -> str:
        try:
            command = (self._root / process / "cmdline").read_bytes()[:4096]
        except OSError:
            return ""
        program = command.partition(b"\0")[0].decode("utf-8", "replace").partition(" ")[0]
        return "".join(c for c in program.rpartition("/")[2] if c.isprintable())[:MAX_NAME].rstrip(":")


def _listeners(lines: Iterable[bytes]) -> list[tuple[bytes, int]]:
    """Inode and port of each listening socket; the kernel lists those before all others."""
    found: list[tuple[bytes, int]] = []
    for number, line in enumerate(lines):
        if not number:
            continue
        fields = line.split()
        if len(fields) < 10:
            continue
        if fields[3] != _LISTEN:
            break
        address, _, port = fields[1].partition(b":")
        local = address == _V6_LOCALHOST or (len(address) == 8 and address.endswith(_V4_LOCAL_NET))
        if not local and int(port, 16):
            found.append((fields[9], int(port, 16)))
    return found
