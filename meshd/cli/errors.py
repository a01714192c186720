"""How a command ends other than well. Nothing here reaches a user as a traceback."""

from __future__ import annotations


class CliError(Exception):
    """One message for the user; the exit code is 1 unless said otherwise."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class UsageError(Exception):
    """A flag that does not exist or whose value does not fit: message and usage on stderr, exit code 2."""


class HelpRequested(Exception):
    """-h or --help: usage on stdout, exit code 0."""


class Exit(Exception):
    """End now with this code; everything to be said has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class NotRunning(CliError):
    """Nobody answers on the daemon's socket."""


class AccessDenied(CliError):
    """The daemon refused this user (403)."""


class LeftToUs(Exception):
    """Where a connection goes that does not lead into the mesh: whoever wants it makes it as the user that they are."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


class ApiError(CliError):
    """The daemon answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
