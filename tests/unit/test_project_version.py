"""Plinth's version is in pyproject.toml, whatever repeats it agrees, and `plinth --version` prints it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from plinth import embedded
from plinth.cli import app
from plinth.settings import Qdrant
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
PINS = yaml.safe_load((ROOT / "config" / "images.yaml").read_text())
CHARTS = sorted(path.parent for path in (ROOT / "charts").glob("*/Chart.yaml"))
# These charts deploy Plinth's own image, and the others the images of their servers.
CHARTS_OF_PLINTH = {"backup", "gateway"}
IMAGE_ON_A_PAGE = re.compile(r"\bplinth:(\d+\.\d+\.\d+)")


def chart(directory: Path, file: str) -> Any:
    return yaml.safe_load((directory / file).read_text())


def own_images(values: Any) -> Iterator[dict[str, Any]]:
    """Plinth's image in the values of a chart: no public registry has it, so the repository is empty."""
    if isinstance(values, dict):
        if values.get("repository") == "":
            yield values
        for value in values.values():
            yield from own_images(value)


def qdrant_tag() -> str:
    tag = re.search(r":v([\d.]+)", PINS["images"]["qdrant"])
    assert tag is not None
    return tag[1]


def test_the_installed_package_and_the_image_have_the_projects_version() -> None:
    assert version("plinth") == VERSION
    assert PINS["images"]["plinth"].endswith(f"plinth:{VERSION}")


@pytest.mark.parametrize("directory", CHARTS, ids=lambda path: path.name)
def test_each_chart_has_the_projects_version(directory: Path) -> None:
    about = chart(directory, "Chart.yaml")
    assert about["version"] == VERSION
    assert (about["appVersion"] == VERSION) == (directory.name in CHARTS_OF_PLINTH)


def test_the_values_of_the_charts_have_plinths_image_in_the_projects_version() -> None:
    tags = [image["tag"] for directory in CHARTS for image in own_images(chart(directory, "values.yaml"))]
    assert len(tags) >= len(CHARTS_OF_PLINTH)
    assert set(tags) == {VERSION}


def test_the_pages_name_plinths_image_in_the_projects_version() -> None:
    named = {found for page in (ROOT / "docs").rglob("*.md") for found in IMAGE_ON_A_PAGE.findall(page.read_text())}
    assert named == {VERSION}


def test_the_changelog_has_a_dated_heading_for_the_projects_version() -> None:
    headings = re.findall(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0][0] == VERSION


def test_qdrants_version_is_the_same_wherever_it_is_pinned() -> None:
    platforms = PINS["downloads"]["qdrant"]["platforms"].values()
    assert {platform["version"] for platform in platforms} == {qdrant_tag()}
    assert Qdrant().version == embedded.VERSION == qdrant_tag()


def test_the_embedded_engine_names_the_pinned_version_of_qdrant_edge() -> None:
    pinned = next(line for line in PROJECT["dependencies"] if line.startswith("qdrant-edge-py=="))
    assert embedded.ENGINE.endswith(f"(qdrant-edge {pinned.partition('==')[2]})")


def test_the_option_version_prints_plinth_and_the_parts_that_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ran = CliRunner().invoke(app, ["--version"])
    assert ran.exit_code == 0
    assert ran.output.splitlines() == [
        f"plinth {VERSION}",
        f"pulumi {PINS['tools']['pulumi']}",
        f"qdrant {qdrant_tag()}",
        f"qdrant-edge {version('qdrant-edge-py')}",
    ]


def test_outside_of_a_project_the_option_version_says_what_is_not_pinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, ["--version"])
    assert ran.exit_code == 0
    assert ran.output.splitlines()[0] == f"plinth {VERSION}"
    assert "pulumi (pinned by the project, and this directory is in none)" in ran.output
