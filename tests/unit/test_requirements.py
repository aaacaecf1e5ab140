"""docs/requirements.md and the markers of the tests name the same requirements, and its paths lead to tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "requirements.md"
_ID = r"S\d-\d\d"
_RANGE = re.compile(rf"({_ID}) … ({_ID})")
_PATH = re.compile(r"`((?:tests|load)(?:/[\w.*]+)+)`")


def rows(page: str) -> list[tuple[str, str]]:
    """The cells of each row of the table: the requirements, and what proves them."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| S"]
    return [(requirements, proofs) for requirements, proofs in cells]


def ids(requirements: str) -> set[str]:
    """The ids in a cell; `S4-02 … S4-10` stands for all of them."""
    named = set(re.findall(_ID, requirements))
    for first, last in _RANGE.findall(requirements):
        chapter = first.partition("-")[0]
        named |= {f"{chapter}-{number:02}" for number in range(int(first[-2:]), int(last[-2:]) + 1)}
    return named


def marked(source: str) -> Iterator[str]:
    """The ids of the markers `requirement` in the source of a test module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "requirement":
            for argument in node.args:
                yield str(ast.literal_eval(argument))


ROWS = rows(PAGE.read_text())
IN_TABLE = {named for requirements, _ in ROWS for named in ids(requirements)}
IN_TESTS = {found for path in (ROOT / "tests").rglob("test_*.py") for found in marked(path.read_text())}


def test_every_requirement_of_the_table_has_a_test_and_every_marker_a_row() -> None:
    without_test, without_row = IN_TABLE - IN_TESTS, IN_TESTS - IN_TABLE
    assert not without_test, "no test has the marker"
    assert not without_row, "docs/requirements.md has no row"


@pytest.mark.parametrize(("requirements", "proofs"), ROWS, ids=[row[0][:5] for row in ROWS])
def test_every_row_names_tests_that_exist(requirements: str, proofs: str) -> None:
    paths = _PATH.findall(proofs)
    assert paths, requirements
    assert [path for path in paths if not any(ROOT.glob(path))] == []


def test_ranges_and_markers_of_every_form_are_read() -> None:
    assert ids("S4-02 … S4-04 create, S1-01") == {"S4-02", "S4-03", "S4-04", "S1-01"}
    source = (
        "pytestmark = [pytest.mark.requirement('S1-01')]\n"
        "case = pytest.param(1, marks=pytest.mark.requirement('S2-02'))\n"
    )
    assert set(marked(source)) == {"S1-01", "S2-02"}
