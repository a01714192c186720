"""Switches of the environment: variables that are true or false."""

from __future__ import annotations

from collections.abc import Mapping

from meshd.base.errors import MeshdError

_WORDS = {**dict.fromkeys(("1", "t", "true"), True), **dict.fromkeys(("", "0", "f", "false"), False)}


def switch(environment: Mapping[str, str], name: str) -> bool:
    """Whether ``name`` is set to true. Raises MeshdError "usage" for what is neither true nor false."""
    value = environment.get(name, "")
    wanted = _WORDS.get(value.lower())
    if wanted is None:
        raise MeshdError(
            f'invalid value "{value}" for the environment variable {name}: expected true or false', code="usage"
        )
    return wanted
