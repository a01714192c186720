"""Three network namespaces on a switch: a control host and nodes a and b; programs and their costs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import meshd

PREFIX = "mperf"
ADDRESS = {"c": "10.98.0.1", "a": "10.98.0.11", "b": "10.98.0.12"}
_TICKS = os.sysconf("SC_CLK_TCK")


def sh(*command: str, check: bool = True, text: str | None = None) -> str:
    """Run a command to its end; RuntimeError with its output when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, input=text)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def on(host: str, *command: str, check: bool = True) -> str:
    return sh("ip", "netns", "exec", f"{PREFIX}-{host}", *command, check=check)


def program(name: str) -> str:
    """One of our console scripts beside the interpreter, else from PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


@dataclass
class Program:
    """A running program, with its processor time and memory."""

    popen: subprocess.Popen[bytes]
    log: Path

    def cpu_s(self) -> float:
        total = 0
        for pid in self._family():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def pss_mb(self) -> float:
        total = 0
        for pid in self._family():
            with contextlib.suppress(OSError):
                found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
        return round(total / 1024, 1)

    def _family(self) -> list[int]:
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += [int(c) for c in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        return found

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


def _environment() -> dict[str, str]:
    """Ours, but for what keeps Python from its compiled modules, which an installed program has."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def compile_modules() -> None:
    """As an installer does: no figure is the compiler's."""
    folder = str(Path(meshd.__file__).parent)
    subprocess.run([sys.executable, "-m", "compileall", "-q", folder], env=_environment(), check=True)


@dataclass
class Hosts:
    """The namespaces and everything started in them."""

    directory: Path
    programs: list[Program] = field(default_factory=list)

    def start(self, host: str, log: str, command: Sequence[str], environment: dict[str, str] | None = None) -> Program:
        path = self.directory / log
        with path.open("ab") as output:
            popen = subprocess.Popen(
                ["ip", "netns", "exec", f"{PREFIX}-{host}", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**_environment(), **(environment or {})},
            )
        started = Program(popen, path)
        self.programs.append(started)
        return started

    def last_words(self, lines: int = 5) -> str:
        """The end of every program's log, for the message about a failure."""
        ends = []
        for started in self.programs:
            said = started.log.read_text(errors="replace").splitlines()[-lines:]
            ends.append("\n".join([f"-- {started.log.name}", *said]))
        return "\n".join(ends)

    def stop_programs(self) -> None:
        for started in reversed(self.programs):
            started.stop()
        self.programs.clear()


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll a callable until it is true; RuntimeError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def only_run(who: str, *programs: str) -> Iterator[None]:
    """What every run in namespaces begins with; SystemExit with the reason when it cannot be made.

    One run at a time: the namespaces have fixed names, and two runs would measure each other. A run that is told to end
    does so by way of its clean-up.
    """
    if os.geteuid() != 0:
        raise SystemExit(f"{who}: namespaces need root")
    missing = [name for name in ("ip", *programs) if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{who}: not on PATH: {', '.join(missing)} (scripts/setup test installs what is needed)")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    with Path(tempfile.gettempdir(), "meshd-perf-path.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{who}: another run is under way on this machine") from None
        yield


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextlib.contextmanager
def hosts() -> Iterator[Hosts]:
    """Make the namespaces; remove them and their programs afterwards."""
    compile_modules()
    _remove()
    directory = Path(tempfile.mkdtemp(prefix="meshd-perf-"))
    made = Hosts(directory)
    try:
        sh("ip", "netns", "add", f"{PREFIX}-sw")
        on("sw", "ip", "link", "add", "br0", "type", "bridge")
        on("sw", "ip", "link", "set", "br0", "up")
        for host, address in ADDRESS.items():
            name = f"{PREFIX}-{host}"
            Path(f"/etc/netns/{name}").mkdir(parents=True, exist_ok=True)
            Path(f"/etc/netns/{name}/resolv.conf").write_text("# none\n")
            sh("ip", "netns", "add", name)
            sh("ip", "link", "add", f"v{host}", "netns", f"{PREFIX}-sw", "type", "veth", "peer", "name", "eth0",
               "netns", name)  # fmt: skip
            on("sw", "ip", "link", "set", f"v{host}", "master", "br0", "up")
            on(host, "ip", "link", "set", "lo", "up")
            on(host, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
            on(host, "ip", "link", "set", "eth0", "up")
        yield made
    finally:
        made.stop_programs()
        _remove()
        shutil.rmtree(directory, ignore_errors=True)


def forbid_udp_between_nodes() -> None:
    """From now on a and b reach each other only through the relay."""
    for host, other in (("a", "b"), ("b", "a")):
        rules = (
            "table inet mperf { chain in { type filter hook input priority -300; "
            f"ip saddr {ADDRESS[other]} meta l4proto udp drop; }}; }}"
        )
        sh("ip", "netns", "exec", f"{PREFIX}-{host}", "nft", "-f", "-", text=rules)


def _remove() -> None:
    for host in (*ADDRESS, "sw"):
        name = f"{PREFIX}-{host}"
        for pid in sh("ip", "netns", "pids", name, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        sh("ip", "netns", "del", name, check=False)
        shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
