"""The daemon returns memory that it needed for a moment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_large_buffers_go_back_to_the_system() -> None:
    code = (
        "from meshd.daemon.memory import keep_what_is_there, set_up_memory\n"
        "set_up_memory()\nkeep_what_is_there()\n"
        "def resident():\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "before = resident()\n"
        "for _ in range(3):\n"
        "    parts = [b'x' * (12 << 20) for _ in range(3)]\n"
        "    last = bytes(100)\n"
        "    del parts\n"
        "print(resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 8 << 20
