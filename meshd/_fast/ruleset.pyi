"""Compilation of packet filter rules. There is no Python API here: see filter.Filter."""
