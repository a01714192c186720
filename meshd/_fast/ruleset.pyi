"""Compilation and change of packet filter rules. There is no Python API here: see filter.Filter."""

from collections.abc import Iterable
from typing import final

@final
class RuleSet:
    """The rules behind a program."""

    def __new__(cls, rules: Iterable[object], local: Iterable[tuple[bytes, int]]) -> RuleSet: ...

@final
class Rule:
    """A rule, checked."""

@final
class Group:
    """A list of sources that some rules share."""

@final
class Target:
    """Protocols and ports that a group may reach, and where."""

@final
class Work:
    """What a change has to do."""
