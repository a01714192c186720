"""Build of the Cython extensions in ``meshd/_fast``; everything else is in pyproject.toml.

``MESHD_DEBUG=1`` builds with bounds checks, line tracing and assertions; ``MESHD_SANITIZE=1`` adds
AddressSanitizer and UndefinedBehaviorSanitizer (load the run time with LD_PRELOAD).
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("MESHD_DEBUG") == "1"
SANITIZE = os.environ.get("MESHD_SANITIZE") == "1"
FAST = Path("meshd/_fast")

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
    compile_args += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    link_args += ["-fsanitize=address,undefined"]

# Modules that call libsodium directly; the OpenSSL back end is opened at run time.
LIBRARIES = {"aead": ["sodium"]}

extensions = [
    Extension(
        f"meshd._fast.{source.stem}",
        [str(source)],
        include_dirs=[str(FAST / "c")],
        libraries=LIBRARIES.get(source.stem, []),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=[("CYTHON_TRACE", "1")] if DEBUG else [],
        depends=[str(p) for p in sorted((FAST / "c").glob("*.h"))],
    )
    for source in sorted(FAST.glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "linetrace": DEBUG,
            "embedsignature": False,
        },
        quiet=True,
    )
    if extensions
    else [],
)
