"""Looks for object member names that are spelled another way than they should be."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import Final

_NAME: Final = re.compile(rb'"([A-Za-z][A-Za-z0-9]*)"[ \t\r\n]*:')


def foreign_names(data: bytes, exact: AbstractSet[bytes], folded: AbstractSet[bytes]) -> list[bytes]:
    """Names in `data` that are not in `exact` but whose lower-case form is in `folded`."""
    return [name for name in set(_NAME.findall(data)) - exact if name.lower() in folded]
