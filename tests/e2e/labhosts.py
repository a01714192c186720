"""Real hosts for tests: the namespaces of scripts/lab, and the programs of this project running in them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
COORD_IP = "198.51.100.1"
COORD_URL = f"http://{COORD_IP}:8080"


def program(name: str) -> str:
    """The path of one of our console scripts, those of the running interpreter first."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    return str(Path(sysconfig.get_path("scripts")) / name)


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until ``condition`` is true and return its value; AssertionError with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)


def answers(path: Path) -> bool:
    """Whether somebody listens on the Unix socket. The file alone is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Process:
    """A program in a host, with its output in a file, from byte ``start`` on: earlier runs may stand before it."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path, start: int) -> None:
        self.popen = popen
        self.log = log
        self._start = start

    @property
    def output(self) -> str:
        return self.log.read_bytes()[self._start :].decode(errors="replace")

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10) -> int:
        """End it and return its exit status."""
        if self.running:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"did not end within {seconds} s of signal {number}:\n{self.output[-2000:]}") from None


class Lab:
    """One set of hosts; see scripts/lab for the drawing."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self._processes: list[Process] = []

    def script(self, *arguments: str) -> None:
        subprocess.run(
            [str(REPOSITORY / "scripts/lab"), *arguments],
            check=True,
            env={**os.environ, "MESHD_LAB": self.name},
            timeout=60,
        )

    def run(
        self, host: str, *command: str, check: bool = True, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end."""
        done = subprocess.run(
            ["ip", "netns", "exec", f"{self.name}-{host}", *command],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)} on {host}:\n{done.stdout}{done.stderr}"
        return done

    def start(self, host: str, log: str, *command: str, environment: dict[str, str] | None = None) -> Process:
        """Start a program on a host; its output goes to the file ``log``."""
        # A daemon that changes the host's DNS would change the machine's where ip-netns(8) has no file to put over it.
        assert Path(f"/etc/netns/{self.name}-{host}/resolv.conf").exists(), f"host {host} has no resolv.conf"
        path = self.directory / log
        with path.open("ab") as output:
            start = output.tell()
            popen = subprocess.Popen(
                ["ip", "netns", "exec", f"{self.name}-{host}", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
            )
        process = Process(popen, path, start)
        self._processes.append(process)
        return process

    def stop_all(self) -> None:
        for process in reversed(self._processes):
            if process.running:
                process.popen.terminate()
        for process in self._processes:
            try:
                process.popen.wait(10)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()


class Coordinator:
    """A mesh-coord on the host ``net``."""

    def __init__(self, lab: Lab, *flags: str, url: str = COORD_URL) -> None:
        self.lab = lab
        self.directory = lab.directory / "coord"
        self._flags = flags
        self.url = url
        self.process = self._start()
        self.auth_key = self._auth_key()

    def _start(self) -> Process:
        listen = self.url.removeprefix("http://")
        return self.lab.start(
            "net", "coord.log", program("mesh-coord"), "serve", "--state-dir", str(self.directory),
            "--listen", listen, "--url", self.url, *self._flags,
        )  # fmt: skip

    def _auth_key(self) -> str:
        line = wait_until(
            lambda: re.search(r"--auth-?key=(\S+)", self.process.output) or not self.process.running,
            15,
            "mesh-coord's line",
        )
        assert self.process.running, self.process.output
        return str(line[1])

    def command(self, *arguments: str) -> str:
        """mesh-coord talking to the running server."""
        return self.lab.run("net", program("mesh-coord"), *arguments, "--state-dir", str(self.directory)).stdout

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.process.stop(number)
        self.process.log.write_text("")
        self.process = self._start()
        self._auth_key()


class Node:
    """A meshd on host ``a`` or ``b``."""

    def __init__(
        self, lab: Lab, host: str, *flags: str, name: str = "", environment: dict[str, str] | None = None
    ) -> None:
        self.lab = lab
        self.environment = environment
        self.host = host
        self.name = name or f"node-{host}"
        self.directory = lab.directory / self.name
        self.directory.mkdir(exist_ok=True)
        self.socket = self.directory / "sock"
        self.flags = flags or ("--tun=mesh0",)
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)  # of one that was killed
        self.process = self.lab.start(
            self.host, f"{self.name}.log", program("meshd"), f"--statedir={self.directory}",
            f"--socket={self.socket}", "--port=41641", *self.flags, environment=self.environment,
        )  # fmt: skip
        wait_until(lambda: answers(self.socket) or not self._process.running, 10, "meshd's socket")
        assert self._process.running, self._process.output

    @property
    def _process(self) -> Process:
        assert self.process is not None
        return self.process

    @property
    def pid(self) -> int:
        return self._process.popen.pid

    @property
    def output(self) -> str:
        return self._process.output

    def mesh(self, *arguments: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """The command line against this node."""
        return self.lab.run(
            self.host, program("mesh"), f"--socket={self.socket}", *arguments, check=check, seconds=seconds
        )

    def up(self, coordinator: Coordinator, *flags: str) -> None:
        """Join with the coordinator's auth key."""
        self.mesh(
            "up", f"--login-server={coordinator.url}", f"--auth-key={coordinator.auth_key}",
            f"--hostname={self.name}", "--timeout=30s", *flags,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.mesh("status", "--json").stdout))

    def peer(self, name: str) -> dict[str, Any]:
        """The status of the peer with this host name."""
        peers: Sequence[dict[str, Any]] = list((self.status()["Peer"] or {}).values())
        return next((p for p in peers if p["HostName"] == name), {})

    @property
    def ip(self) -> str:
        return self.mesh("ip", "-4").stdout.strip()

    def ping(self, target: str, *, direct: bool) -> str:
        """mesh ping until the wanted kind of path answers; the output."""
        wanted = "true" if direct else "false"
        done = self.mesh("ping", f"--until-direct={wanted}", "--c=20" if direct else "--c=2", "--timeout=5s", target)
        return done.stdout

    def stop(self, number: int = signal.SIGTERM) -> int:
        return self._process.stop(number)

    def memory_kb(self) -> int:
        """Proportional set size."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        assert found
        return int(found[1])

    def host_traces(self) -> list[str]:
        """What a daemon could have left behind on its host."""
        traces = []
        if "mesh0" in self.lab.run(self.host, "ip", "-o", "link").stdout:
            traces.append("interface")
        for family in ("-4", "-6"):
            rules = self.lab.run(self.host, "ip", family, "rule", check=False).stdout
            traces += [line for line in rules.splitlines() if re.match(r"52\d\d:", line)]
            routes = self.lab.run(self.host, "ip", family, "route", "show", "table", "52", check=False).stdout
            traces += routes.splitlines()
        for command in ("nft list ruleset", "iptables-save", "ip6tables-save", "iptables-legacy-save"):
            rules = self.lab.run(self.host, "sh", "-c", f"{command} 2>/dev/null", check=False).stdout
            traces += [line for line in rules.splitlines() if "meshd-" in line]
        if "meshd" in self.lab.run(self.host, "cat", "/etc/resolv.conf", check=False).stdout:
            traces.append("resolv.conf")
        return traces


@contextmanager
def running_lab(directory: Path, name: str, *flags: str) -> Iterator[Lab]:
    """A lab that is gone afterwards, with everything that ran in it."""
    lab = Lab(directory, name)
    lab.script("up", *flags)
    try:
        yield lab
    finally:
        lab.stop_all()
        lab.script("down")
