"""Each promise of SECURITY.md names tests that are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line][1:]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=["::".join(filter(None, test)) for test in NAMED])
def test_a_named_test_is_there(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in functions if name else any(function.startswith("test_") for function in functions)


def test_every_row_says_something_of_every_target_and_is_held_on_the_first() -> None:
    assert len(ROWS) > 10
    for row in ROWS:
        assert len(row) == 4, row[0]
        assert all(cell.strip() for cell in row), row[0]
        assert "`tests/" in row[1], row[0]
