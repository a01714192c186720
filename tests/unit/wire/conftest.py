"""Byte vectors for the codec tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_VECTORS = Path(__file__).parents[2] / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """`vectors("disco")` is the content of tests/vectors/disco.json."""
    return lambda name: json.loads((_VECTORS / f"{name}.json").read_text())
