"""Builds the small Cython programs that measure or exercise ``meshd._fast`` below the Python call.

A Python call costs more than most of these functions, so their loops must be C loops. The modules are built on first
use into ``build/native`` and rebuilt when their source or any C declaration of ``meshd/_fast`` is newer.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
FAST = ROOT / "meshd" / "_fast"
BUILD = ROOT / "build" / "native"


def load(source: Path) -> ModuleType:
    """The module compiled from a ``.pyx`` file."""
    target = BUILD / (source.stem + sysconfig.get_config_var("EXT_SUFFIX"))
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _current(target, source):
            _compile(source, target)
    spec = importlib.util.spec_from_file_location(source.stem, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _current(target: Path, source: Path) -> bool:
    if not target.exists():
        return False
    inputs = [source, *source.parent.glob("*.h"), *FAST.glob("*.pxd"), *FAST.glob("c/*.h")]
    return all(path.stat().st_mtime < target.stat().st_mtime for path in inputs)


def _optimisation() -> list[str]:
    """Flags as those of the extensions (setup.py)."""
    sanitize = {"1": "address,undefined", "thread": "thread"}.get(os.environ.get("MESHD_SANITIZE", ""))
    return ["-Og", "-g", f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"] if sanitize else ["-O3"]


def _compile(source: Path, target: Path) -> None:
    c_file = BUILD / f"{source.stem}.c"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "cython",
            "-3",
            "-X",
            "cdivision=True",
            "-X",
            "boundscheck=False",
            "-X",
            "wraparound=False",
            "-I",
            str(ROOT),
            str(source),
            "-o",
            str(c_file),
        ],
        check=True,
    )
    subprocess.run(
        [
            "cc",
            *_optimisation(),
            "-std=gnu11",
            "-fno-strict-aliasing",
            "-shared",
            "-fPIC",
            "-w",
            f"-I{FAST / 'c'}",
            f"-I{source.parent}",
            f"-I{sysconfig.get_path('include')}",
            str(c_file),
            "-o",
            str(target),
        ],
        check=True,
    )
