"""What `make charts` writes is current, and what it makes of values.yaml."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import yaml

from tests.charts.rendering import CHARTS, NAMES
from tests.conftest import ROOT


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plinth_charts", ROOT / "scripts/charts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


charts = script()
VALUES = """\
# -- How many.
# @schema {"minimum": 1}
replicas: 3
image:
  # -- Which one,
  # in words.
  tag: v1
  # -- Free.
  extra: {}
# -- A whole: its parts are its own.
# @schema {"type": "object"}
config:
  a: {b: c}
"""


def test_every_generated_file_is_current() -> None:
    """Rules and dashboards are those of monitoring/, schemas and READMEs those of values.yaml."""
    wanted = charts.generated()
    assert [str(path) for path, content in wanted.items() if not path.is_file() or path.read_text() != content] == []
    assert charts.stale(wanted) == []


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_is_in_the_readme(chart: str) -> None:
    text = (CHARTS / chart / "README.md").read_text()
    found = charts.values((CHARTS / chart / "values.yaml").read_text())
    assert found
    for value in found:
        assert f"| `{'.'.join(value.path)}` |" in text


def test_comments_become_documentation_and_schema() -> None:
    found = {value.path: value for value in charts.values(VALUES)}
    assert list(found) == [("replicas",), ("image", "tag"), ("image", "extra"), ("config",)]
    assert found["image", "tag"].description == "Which one, in words."
    made = charts.schema(list(found.values()), "t")
    assert made["additionalProperties"] is False
    assert made["properties"]["replicas"] == {"description": "How many.", "type": "integer", "minimum": 1}
    assert made["properties"]["image"]["additionalProperties"] is False
    assert made["properties"]["image"]["properties"]["extra"]["type"] == "object"
    assert "additionalProperties" not in made["properties"]["config"]


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(charts.Undocumented, match=r"image\.tag has no comment"):
        charts.values("image:\n  tag: v1\n")


@pytest.mark.parametrize("chart", NAMES)
def test_values_are_named_in_camel_case(chart: str) -> None:
    for value in charts.values((CHARTS / chart / "values.yaml").read_text()):
        for part in value.path:
            assert part[0].islower(), value.path
            assert part.isalnum(), value.path


def test_the_namespace_of_the_example_enforces_restricted() -> None:
    documents = list(yaml.safe_load_all((CHARTS / "namespace.yaml").read_text()))
    labels = next(d for d in documents if d["kind"] == "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {d["kind"] for d in documents} == {"Namespace", "LimitRange", "ResourceQuota"}
