"""Keys of a session that ended are nowhere in memory any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshd._fast import aead
from tests.unit.fast.keyscan import KEY_BYTES, places_of

BORING = next(iter(sorted(Path("/usr/lib").glob("*/android/libcrypto.so.*"))), None)
BACKENDS = [name for name in aead.available() if name != "boringssl"] + (["boringssl"] if BORING else [])
WAYS = ["clear", "remove_session", "remove_peer", "replace", "stop"]


def scan(way: str, backend: str) -> tuple[list[str], list[str]]:
    """Where the keys stand while the session is in use, and after it ended."""
    keys = [os.urandom(KEY_BYTES) for _ in range(2)]
    environment = os.environ | {"MESHD_AEAD": backend}
    if backend == "boringssl":
        environment["MESHD_AEAD_LIBRARY"] = str(BORING)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.unit.fast.keyscan", way],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, bufsize=0,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(b"".join(keys))
        seen = []
        for word in (b"installed\n", b"ended\n"):
            said = child.stdout.readline()
            if said != word:
                child.kill()
                pytest.fail(child.stderr.read().decode())
            seen.append(places_of(child.pid, keys))
            child.stdin.write(b"\n")
        assert child.wait(20) == 0, child.stderr.read().decode()
    return seen[0], seen[1]


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer maps terabytes")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("way", "backend"), [(way, "auto") for way in WAYS] + [("clear", name) for name in BACKENDS if name != "auto"]
)
def test_session_keys_are_gone_from_memory_after(way: str, backend: str) -> None:
    during, after = scan(way, backend)
    assert len(during) >= 4, "the scanner sees nothing"
    assert after == []
