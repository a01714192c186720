"""Host routes of the longest-prefix map. There is no Python API here: see lpm.PrefixMap."""
