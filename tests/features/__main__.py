"""Writes tests/FEATURES.md, or with `--check` tells whether it and the catalogue are true."""

from __future__ import annotations

import sys

from tests.features.catalog import PAGE, CatalogError, faults, page, read_sections


def main(arguments: list[str]) -> int:
    """0 when all is well; each fault is a line on standard error."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m tests.features [--check]", file=sys.stderr)
        return 2
    try:
        sections = read_sections()
    except CatalogError as error:
        print(error, file=sys.stderr)
        return 1
    wrong = faults(sections)
    text = page(sections)
    if not arguments:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        wrong.append("tests/FEATURES.md is not what the catalogue says: run python -m tests.features")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
