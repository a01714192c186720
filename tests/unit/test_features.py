"""The checklist's own rules: what it takes for a row to count as proven."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.features.catalog import CatalogError, faults, page, read_sections

TESTS = '''
TABLE = ["env:PORT", "PORT"]


@decorate("SM-02")
def test_decorated():
    """Says nothing."""


async def test_described():
    """SM-01: it holds."""


def test_by_table():
    for name in TABLE:
        assert name


class TestGroup:
    def test_inside(self):
        """SM-03: it holds."""
'''


def written(folder: Path, text: str) -> Path:
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests/test_it.py").write_text(TESTS)
    (folder / "10_section.toml").write_text(text)
    return folder


def row(name: str, test: str) -> str:
    return f'["{name}"]\nwhat = "It holds."\ntests = ["tests/test_it.py::{test}"]\n'


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("SM-01", "test_described"),
        ("SM-02", "test_decorated"),
        ("SM-03", "TestGroup::test_inside"),
        ("env:PORT", "test_by_table"),
    ],
)
def test_a_test_that_names_its_row_proves_it(tmp_path: Path, name: str, test: str) -> None:
    sections = read_sections(written(tmp_path, 'title = "T"\n' + row(name, test)))
    assert faults(sections, tmp_path) == []
    assert f"| `{name}` | It holds. | `test_it.py::{test}` |" in page(sections)


@pytest.mark.parametrize(
    ("name", "test", "fault"),
    [
        ("SM-04", "test_described", "does not name it"),
        ("SM-01", "test_gone", "has no test test_gone"),
        ("env:HOME", "test_by_table", "does not name it"),
    ],
)
def test_a_proof_that_is_none_is_a_fault(tmp_path: Path, name: str, test: str, fault: str) -> None:
    sections = read_sections(written(tmp_path, 'title = "T"\n' + row(name, test)))
    assert [line for line in faults(sections, tmp_path) if fault in line and line.startswith(name)]


def test_a_test_file_that_is_gone_is_a_fault(tmp_path: Path) -> None:
    folder = written(tmp_path, 'title = "T"\n["SM-01"]\nwhat = "w"\ntests = ["tests/test_other.py::test_x"]\n')
    assert faults(read_sections(folder), tmp_path) == ["SM-01: tests/test_other.py does not exist"]


def test_a_row_in_two_sections_is_a_fault(tmp_path: Path) -> None:
    folder = written(tmp_path, 'title = "T"\n' + row("SM-01", "test_described"))
    (folder / "20_again.toml").write_text('title = "U"\n' + row("SM-01", "test_described"))
    assert faults(read_sections(folder), tmp_path) == ["SM-01: listed twice"]


@pytest.mark.parametrize(
    "text",
    [
        'title = "T"\n["A-01"]\nwhat = "no proof"\n',
        'title = "T"\n["A-01"]\nwhat = "both"\nabsent = "x"\ntests = ["t"]\n',
        'title = "T"\n["A-01"]\nabsent = "nothing said"\n',
        'title = "T"\n["A-01"]\nwhat = "typo"\ntest = ["t"]\n',
        '["A-01"]\nwhat = "no title"\nabsent = "x"\n',
        'title = "T"\n["A-01"\n',
    ],
)
def test_a_catalogue_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CatalogError, match=r"10_section\.toml"):
        read_sections(written(tmp_path, text))
