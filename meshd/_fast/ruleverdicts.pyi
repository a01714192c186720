"""Verdicts of a filter program. There is no Python API here: see filter.Filter."""

from typing import final

@final
class Verdicts:
    """The verdicts in use, each content once."""
