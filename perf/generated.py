"""Reads the C that Cython made of ``meshd._fast`` and looks for the interpreter on the packet path.

    python -m perf.generated

Everything reachable from the loops of the packet threads, and every AEAD back end, must be plain C: no call into the
interpreter, no reference count, no request for memory, no lock.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

from perf.micro.native import BUILD, FAST, ROOT

ROOTS = ("worker.sender_run_c", "worker.receiver_run_c")
BACKENDS = re.compile(r"aead\.\w+_(?:seal|open|forget)$")

Bodies = dict[str, str]

_START = re.compile(r"static .*?\b__pyx_f_5meshd_5_fast_(\w+)\(.*\) \{$")
_NAME = re.compile(r"\b__pyx_f_5meshd_5_fast_(\w+)")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_PYTHON = re.compile(r"\b(_?Py[A-Z_]\w*|__Pyx_\w+)\s*\(")
_MEMORY = re.compile(r"\b((?:m|c|re)alloc|free|posix_memalign|aligned_alloc|m(?:un|re)?map|pthread_\w*lock)\s*\(")


def sources() -> list[Path]:
    """The generated file of each module; one that is missing or stale is made in ``build/native``."""
    return [_current(source) for source in sorted(FAST.glob("*.pyx"))]


def _current(source: Path) -> Path:
    made = source.with_suffix(".c")
    if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
        return made
    BUILD.mkdir(parents=True, exist_ok=True)
    fresh = BUILD / f"_fast_{source.stem}.c"
    options = [f"-X{name}={value}" for name, value in _DIRECTIVES.items()]
    command = [sys.executable, "-m", "cython", "-3", *options, str(source.relative_to(ROOT)), "-o", str(fresh)]
    subprocess.run(command, check=True, cwd=ROOT)
    return fresh


_DIRECTIVES = {"boundscheck": False, "wraparound": False, "initializedcheck": False, "cdivision": True}
"""As in setup.py."""


def functions(files: list[Path]) -> Bodies:
    """The bodies of all C functions by ``module.name``, comments removed."""
    found: Bodies = {}
    for path in files:
        lines = iter(path.read_text().splitlines())
        for line in lines:
            if line.startswith("static ") and (start := _START.match(line)):
                body = "\n".join(itertools.takewhile(lambda text: text != "}", lines))
                found.setdefault(_plain(start[1]), _COMMENT.sub("", body))
    return found


def _plain(mangled: str) -> str:
    """``6worker_sender_run_c``, as Cython writes it, is ``worker.sender_run_c``."""
    digits = re.match(r"\d+", mangled)
    if digits is None:
        return mangled
    start = digits.end()
    end = start + int(digits[0])
    return f"{mangled[start:end]}.{mangled[end:].lstrip('_')}"


def reachable(bodies: Bodies, roots: list[str]) -> Bodies:
    """The roots and everything they call, directly or not. KeyError: a root does not exist any more."""
    todo, found = list(roots), {root: bodies[root] for root in roots}
    while todo:
        for mangled in _NAME.findall(found[todo.pop()]):
            name = _plain(mangled)
            if name in bodies and name not in found:
                found[name] = bodies[name]
                todo.append(name)
    return found


def packet_path() -> Bodies:
    """What packet threads run."""
    bodies = functions(sources())
    return reachable(bodies, [*ROOTS, *(name for name in bodies if BACKENDS.match(name))])


def offences(bodies: Bodies) -> list[str]:
    """Where one of them meets the interpreter, the allocator or a lock."""
    return [
        f"{name} calls {call}"
        for name, body in sorted(bodies.items())
        for pattern in (_PYTHON, _MEMORY)
        for call in sorted(set(pattern.findall(body)))
    ]


def main() -> int:
    bodies = packet_path()
    found = offences(bodies)
    print("\n".join([*found, f"{len(bodies)} functions on the packet path, {len(found)} offences"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
