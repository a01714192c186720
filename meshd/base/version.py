"""What this program calls itself, and the protocol level it claims."""

from __future__ import annotations

VERSION = "0.1.0"

# The one integer that stands for protocol behaviour; raised only when everything it implies is built.
CAPABILITY_VERSION = 113


def long_version() -> str:
    """The form that peers and the coordination server see."""
    return f"{VERSION}-meshd"
