"""Build of the Cython extensions in ``meshd/_fast``; everything else is in pyproject.toml.

``MESHD_DEBUG=1`` builds with bounds checks; ``MESHD_SANITIZE=1`` adds AddressSanitizer and
UndefinedBehaviorSanitizer, ``MESHD_SANITIZE=thread`` ThreadSanitizer (load the run time with LD_PRELOAD).
``MESHD_AEAD_LIBRARY`` is the path of a libcrypto of BoringSSL or AWS-LC that is opened at run time.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("MESHD_DEBUG") == "1"
SANITIZE = {"1": "address,undefined", "thread": "thread"}.get(os.environ.get("MESHD_SANITIZE", ""))
AEAD_LIBRARY = os.environ.get("MESHD_AEAD_LIBRARY", "")
FAST = Path("meshd/_fast")
JOBS = os.cpu_count() or 1

compile_args = [
    "-std=gnu11",
    "-fno-strict-aliasing",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
]
compile_args += ["-Wno-unused-function", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
compile_args += ["-Og", "-g3"] if DEBUG or SANITIZE else ["-O3", "-g1"]
link_args: list[str] = []
if SANITIZE:
    compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    link_args += [f"-fsanitize={SANITIZE}"]

# Modules that call libsodium directly; the OpenSSL back end is opened at run time.
LIBRARIES = {"aead": ["sodium"]}

MACROS = {"aead": [("MESHD_AEAD_LIBRARY", f'"{AEAD_LIBRARY}"')] if AEAD_LIBRARY else []}

extensions = [
    Extension(
        f"meshd._fast.{source.stem}",
        [str(source)],
        include_dirs=[str(FAST / "c")],
        libraries=LIBRARIES.get(source.stem, []),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=MACROS.get(source.stem, []),
        depends=[str(p) for p in sorted((FAST / "c").glob("*.h"))],
    )
    for source in sorted(FAST.glob("*.pyx"))
]

MADE = Path("build/debug", FAST) if DEBUG else FAST  # C files of one kind are not taken for the other's


def remove_unfinished(folder: Path) -> None:
    """Remove C files whose writing was cut short, by a full disk say: newer than their sources, they would stay."""
    for made in folder.glob("*.c"):
        with made.open("rb") as file:
            file.seek(max(0, made.stat().st_size - 100))
            whole = file.read().rstrip().endswith(b"#endif /* Py_PYTHON_H */")
        if not whole:
            made.unlink()


remove_unfinished(MADE)
setup(
    ext_modules=cythonize(
        extensions,
        # No line tracing: it takes the interpreter lock at the end of every function, in packet threads too, which may
        # hold a lock of ours by then that the loop's thread waits for.
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": False,
        },
        build_dir="build/debug" if DEBUG else None,
        quiet=True,
        nthreads=JOBS,
    )
    if extensions
    else [],
    options={"build_ext": {"parallel": JOBS}},
)
