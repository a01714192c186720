"""Brings all modules with fuzz targets together; a new one gets its line here."""

from __future__ import annotations

import importlib

MODULES = ("fuzz_wire", "fuzz_text", "fuzz_stream", "fuzz_host", "fuzz_core", "fuzz_fast", "fuzz_coord")


def load() -> None:
    for name in MODULES:
        importlib.import_module(f"tests.fuzz.{name}")
