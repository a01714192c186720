"""Shared state of a data plane; the C API is in planestate.pxd."""

COUNTER_NAMES: tuple[str, ...]
"""Names of the counters, in the order of ``counter_t``."""
