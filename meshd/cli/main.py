"""`mesh`: its first lines, which import nothing, so that an interrupt at any time is no traceback."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        from meshd.cli.dispatch import run

        return run(words)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        return 1 if {"up", "login"} & set(words[:3]) else 130  # behind --socket, too


if __name__ == "__main__":
    sys.exit(main())
