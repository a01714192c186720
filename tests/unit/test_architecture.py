"""ARCHITECTURE.md lists every module once, and the functions it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "meshd"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
WALKS, _, MODULES = TEXT.partition("\n## Modules\n")
LISTED = re.findall(r"^- `(meshd/[^`]+)`: ", MODULES, re.MULTILINE)

# Named in the text, defined by the kernel.
NOT_OURS = frozenset({"UDP_GRO", "UDP_SEGMENT"})


def modules() -> list[str]:
    """Python and Cython modules, C headers, and .pxd files that have no module of their own."""
    found = [path for suffix in ("py", "pyx", "h") for path in PACKAGE.rglob(f"*.{suffix}")]
    found += [path for path in PACKAGE.rglob("*.pxd") if not path.with_suffix(".pyx").exists()]
    return sorted(str(path.relative_to(ROOT)) for path in found if not path.name.startswith("__init__."))


def summary(path: Path) -> str:
    """The first sentence that a module says about itself."""
    found = re.match(r'(?:"""|/\*\s*)(.*?)(?:"""|\*/|\n\s*\n|\n \*\n)', path.read_text(), re.DOTALL)
    return " ".join(found[1].replace("``", "`").split()) if found else "?"


def definitions() -> str:
    """All source text, for looking up names."""
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")]
    return "\n".join(path.read_text() for path in sorted(files))


def test_architecture_every_module_is_listed_once() -> None:
    missing = [f"- `{name}`: {summary(ROOT / name)}" for name in sorted(set(modules()) - set(LISTED))]
    assert not missing, "ARCHITECTURE.md lacks these lines:\n" + "\n".join(missing)
    assert len(LISTED) == len(set(LISTED)), "a module is listed twice"


def test_architecture_lists_no_module_that_is_gone() -> None:
    stale = sorted(set(LISTED) - set(modules()))
    assert not stale, f"ARCHITECTURE.md still lists: {', '.join(stale)}"


def test_architecture_modules_stand_in_order() -> None:
    """One list per folder, each in alphabetical order, so that a new line has one place."""
    folders: dict[str, list[str]] = {}
    for name in LISTED:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    for folder, names in folders.items():
        assert names == sorted(names), f"the modules of {folder} are not in order"
        first = LISTED.index(names[0])
        assert LISTED[first : first + len(names)] == names, f"the modules of {folder} are not together"


def test_architecture_named_functions_and_classes_exist() -> None:
    source = definitions()
    quoted = set(re.findall(r"`([A-Za-z_][A-Za-z0-9_.]*)`", WALKS)) - NOT_OURS
    names = {part for name in quoted for part in name.split(".") if "_" in part or part[:1].isupper()}
    # A class, a Python or C function, or a constant at the beginning of a line.
    defined = r"\b(?:class|def) {0}\b|\b[\w*]+ \*?{0}\(|^ *{0}\b"
    gone = [name for name in sorted(names) if not re.search(defined.format(name), source, re.MULTILINE)]
    assert not gone, f"ARCHITECTURE.md names what no longer exists: {', '.join(gone)}"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_paths_in_the_text_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    paths = re.findall(r"`((?:meshd|tests|scripts|perf|\.ci)/[\w./-]+)`", text)
    gone = sorted({path for path in paths if not (ROOT / path).exists()})
    assert not gone, f"{name} names what does not exist: {', '.join(gone)}"
