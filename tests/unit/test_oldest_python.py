"""Debian's own Python is 3.11.2. mypy holds the package to 3.11; typeshed tells no patch of it from another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

# (the function's name, the argument or None for the name itself): since
LATER = {
    ("extractall", "filter"): "3.11.4",
    ("extract", "filter"): "3.11.4",
    ("unpack_archive", "filter"): "3.11.4",
    ("data_filter", None): "3.11.4",
    ("tar_filter", None): "3.11.4",
    ("fully_trusted_filter", None): "3.11.4",
    ("extraction_filter", None): "3.11.4",
    ("FilterError", None): "3.11.4",
    ("parseaddr", "strict"): "3.11.10",
    ("getaddresses", "strict"): "3.11.10",
}
TOPS = ("plinth", "load", "scripts", "tests")
SOURCES = [ROOT / "__main__.py", *sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))]


def later(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for keyword in node.keywords:
                if (name, keyword.arg) in LATER:
                    yield f"line {node.lineno}: {name}({keyword.arg}=) is of Python {LATER[name, keyword.arg]}"
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if (name, None) in LATER:
            yield f"line {node.lineno}: {name} is of Python {LATER[name, None]}"


def test_nothing_is_used_that_a_later_patch_of_the_oldest_python_brought() -> None:
    found = {
        str(path.relative_to(ROOT)): uses for path in SOURCES if (uses := list(later(ast.parse(path.read_text()))))
    }
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "t.extractall(d, filter='data')",
        "shutil.unpack_archive(a, filter='tar')",
        "tarfile.data_filter",
        "parseaddr(a, strict=False)",
    ],
)
def test_such_a_use_is_seen(text: str) -> None:
    assert list(later(ast.parse(text)))


def test_every_tool_is_told_of_the_same_oldest_python() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r'(?:requires-python = ">=|target-version = "py|python_version = ")([0-9.]+)"', text)
    assert {version.replace(".", "") for version in versions} == {"311"}
    assert len(versions) == 3
