"""How a server ends."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging, sys, threading, time
from meshd.io.stopsignals import leave

threading.Thread(target=time.sleep, args=(3600,)).start()
logging.basicConfig(format="%(message)s")
logging.warning("logged")
sys.stdout.write("said")
leave(3)
"""


def test_leave_waits_for_nothing_and_loses_no_output() -> None:
    """A server that was told to end waited for lookups of names: a minute, where no name server answers."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said", "logged\n")
