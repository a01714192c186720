"""Classes of addresses in a filter program. There is no Python API here: see filter.Filter."""

from typing import final

@final
class Side:
    """One family's addresses as sources or as destinations."""

@final
class Family:
    """Both sides of a family."""

class TooVaried(Exception):
    """More pairs of classes than a table holds."""
