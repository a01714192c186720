"""Traffic between hosts as users cause it: pings of the kernel, files over HTTP with their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.labhosts import Lab, Process, wait_until

PORT = 8000
MIRROR_PORT = 8001

_MIRROR = f"""
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].removeprefix("::ffff:").encode())
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
with Server(("::", {MIRROR_PORT}), Handler) as server:
    print("Serving", flush=True)
    server.serve_forever()
"""


def lost_percent(lab: Lab, host: str, target: str, count: int = 5, *flags: str) -> float:
    """How much of a ping by the host's kernel was lost; 100 without a route."""
    done = lab.run(host, "ping", "-c", str(count), "-i", "0.1", "-W", "2", *flags, target, check=False)
    found = re.search(r"([\d.]+)% packet loss", done.stdout)
    return float(found[1]) if found else 100.0


def wait_reachable(lab: Lab, host: str, target: str, seconds: float = 20) -> None:
    """Until a ping of the kernel loses nothing."""
    wait_until(lambda: lost_percent(lab, host, target, 2) == 0, seconds, f"{host} to reach {target}")


def bracketed(address: str) -> str:
    """An address as URLs want it."""
    return f"[{address}]" if ":" in address else address


class FileServer:
    """A web server on a host with one file of random bytes."""

    def __init__(self, lab: Lab, host: str, size: int, address: str = "::") -> None:
        self.directory: Path = lab.directory / f"www-{host}-{size}"
        self.directory.mkdir(exist_ok=True)
        body = os.urandom(size)
        (self.directory / "file").write_bytes(body)
        self.digest = hashlib.sha256(body).hexdigest()
        self.process: Process = lab.start(
            host, f"www-{host}.log", sys.executable, "-u", "-m", "http.server", str(PORT),
            "--bind", address, "--directory", str(self.directory),
        )  # fmt: skip
        wait_until(lambda: "Serving" in self.process.output or not self.process.running, 10, "the web server")
        assert self.process.running, self.process.output


def fetched_digest(lab: Lab, host: str, address: str, seconds: int = 30) -> str:
    """SHA-256 of the file that the server at ``address`` has, fetched by ``host``; of nothing when that failed."""
    command = f"curl -sSfg --max-time {seconds} http://{bracketed(address)}:{PORT}/file | sha256sum"
    return lab.run(host, "sh", "-c", command, seconds=seconds + 10).stdout.split()[0]


@contextmanager
def slow_transfer(lab: Lab, host: str, address: str, files: FileServer) -> Iterator[subprocess.Popen[bytes]]:
    """A transfer at 4 MB/s; the block runs while it is under way, and afterwards the file must be whole."""
    received = lab.directory / "received"
    with received.open("wb") as output:
        curl = subprocess.Popen(
            ["ip", "netns", "exec", f"{lab.name}-{host}", "curl", "-sSfg", "--limit-rate", "4M", "--max-time", "60",
             f"http://{bracketed(address)}:{PORT}/file"],
            stdout=output,
        )  # fmt: skip
    try:
        wait_until(lambda: received.stat().st_size > 1_000_000 or curl.poll() is not None, 20, "the transfer")
        yield curl
        assert curl.wait(60) == 0
    finally:
        curl.kill()
        curl.wait()
    assert received.read_bytes() == (files.directory / "file").read_bytes()


def start_mirror(lab: Lab, host: str) -> Process:
    """A web server that tells everybody the address they come from."""
    process = lab.start(host, f"mirror-{host}.log", sys.executable, "-c", _MIRROR)
    wait_until(lambda: "Serving" in process.output or not process.running, 10, "the web server")
    assert process.running, process.output
    return process


def caller(lab: Lab, host: str, target: str) -> str:
    """The address that the mirror at ``target`` sees when ``host`` calls; empty when it cannot be reached."""
    url = f"http://{bracketed(target)}:{MIRROR_PORT}/"
    return lab.run(host, "curl", "-sSfg", "--max-time", "5", url, check=False).stdout
