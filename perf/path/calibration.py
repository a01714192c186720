"""Builds the calibration tunnel: what the kernel's interfaces and one AEAD allow in user space."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("calibration.c")
CIPHERS = ("openssl", "sodium", "none")


def build(directory: Path) -> Path:
    """Compile for this machine into ``directory``. RuntimeError with the compiler's words when it fails."""
    target = directory / "calibration"
    command = ["cc", "-O3", "-march=native", "-std=gnu11", str(SOURCE), "-o", str(target)]
    done = subprocess.run([*command, "-lsodium", "-lcrypto", "-lpthread"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the calibration tunnel does not build:\n{done.stderr}")
    return target
