"""The behaviour checklist: what a node promises, and which test proves each promise.

One TOML file a section beside this module. A table per row, named by the row's id:

    title = "State machine"          # once a file, before the first row

    ["SM-01"]
    what = "States have the numbers that programs on the bus know."
    tests = ["tests/unit/core/test_state.py::test_states_have_their_numbers"]

    ["SM-14"]
    what = "One daemon serves several desktop users in turn."
    absent = "not on this platform: Windows only"

A row has ``tests``, or ``absent`` (why this platform has no such thing), or ``later`` (how the node answers while the
part is missing; ``tests`` may prove that). An id with a colon names a thing of a kind, such as ``api:status`` or
``env:PORT``; its test has to name the thing.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
PAGE = ROOT / "tests" / "FEATURES.md"
FIELDS = frozenset({"what", "tests", "absent", "later"})


class CatalogError(Exception):
    """A catalogue that says something untrue or cannot be read."""


@dataclass(frozen=True)
class Row:
    """One promise. ``tests`` are pytest node ids without parameters."""

    id: str
    what: str
    tests: tuple[str, ...]
    absent: str
    later: str


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[Row, ...]


def read_sections(folder: Path = FOLDER) -> list[Section]:
    """All sections in the order of their file names."""
    return [_read_section(path) for path in sorted(folder.glob("*.toml"))]


def faults(sections: list[Section], root: Path = ROOT) -> list[str]:
    """What is wrong with the catalogue, a line each: doubled rows, tests that do not exist or do not name the row."""
    found: list[str] = []
    seen: set[str] = set()
    for row in (row for section in sections for row in section.rows):
        if row.id in seen:
            found.append(f"{row.id}: listed twice")
        seen.add(row.id)
        found += [f"{row.id}: {fault}" for test in row.tests if (fault := _fault(row.id, test, root))]
    return found


def page(sections: list[Section]) -> str:
    """FEATURES.md: a table a section."""
    rows = [row for section in sections for row in section.rows]
    proven = sum(1 for row in rows if row.tests and not row.later)
    later = sum(1 for row in rows if row.later)
    lines = [
        "# What a node promises, and the tests that prove it",
        "",
        "Written by `python -m tests.features` from `tests/features/*.toml`; `scripts/check` fails when a test listed",
        "here does not exist or does not name its row.",
        "",
        f"{len(rows)} rows: {proven} proven by tests, {later} not built yet, "
        f"{len(rows) - proven - later} not on this platform.",
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", "| row | what | proof |", "|---|---|---|"]
        lines += [f"| `{_cell(row.id)}` | {_cell(row.what)} | {_cell(_proof(row))} |" for row in section.rows]
    return "\n".join(lines) + "\n"


def _read_section(path: Path) -> Section:
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{path.name}: {error}") from None
    title = data.pop("title", "")
    if not isinstance(title, str) or not title:
        raise CatalogError(f"{path.name}: no title")
    return Section(title, tuple(_row(path.name, name, fields) for name, fields in data.items()))


def _row(file: str, name: str, fields: object) -> Row:
    if not isinstance(fields, dict) or not fields.keys() <= FIELDS or not fields.get("what"):
        raise CatalogError(f"{file}: {name}: a row has 'what', and 'tests', 'absent' or 'later'")
    row = Row(
        name,
        str(fields["what"]),
        tuple(map(str, fields.get("tests", ()))),
        str(fields.get("absent", "")),
        str(fields.get("later", "")),
    )
    if not (row.tests or row.absent or row.later) or (row.absent and (row.tests or row.later)):
        raise CatalogError(f"{file}: {name}: needs 'tests', or one of 'absent' and 'later'")
    return row


def _fault(row: str, test: str, root: Path) -> str:
    file, _, name = test.partition("::")
    sources = _functions(root / file)
    if sources is None:
        return f"{file} does not exist"
    if name not in sources:
        return f"{file} has no test {name}"
    if row.partition(":")[2] not in sources[name] if ":" in row else row not in sources[name]:
        return f"{test} does not name it"
    return ""


@functools.cache
def _functions(path: Path) -> dict[str, str] | None:
    """What each test of a file says: its own source, and the module's constants that it names."""
    if not path.is_file():
        return None
    text = path.read_text()
    tree = ast.parse(text)
    lines = text.splitlines()

    def source(node: ast.stmt) -> str:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(lines[first - 1 : node.end_lineno])

    constants = {
        target.id: source(node)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found: dict[str, str] = {}
    for node in tree.body:
        tests = [(node.name + "::", inner) for inner in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
        for prefix, function in tests:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or not function.name.startswith("test"):
                continue
            names = {
                inner.id
                for part in (function, *function.decorator_list)
                for inner in ast.walk(part)
                if isinstance(inner, ast.Name)
            }
            found[prefix + function.name] = "\n".join(
                [source(function), *(constants[name] for name in sorted(names & constants.keys()))]
            )
    return found


def _proof(row: Row) -> str:
    if row.absent:
        return row.absent
    tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in row.tests)
    return " ".join(filter(None, (f"not yet: {row.later}" if row.later else "", tests)))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
