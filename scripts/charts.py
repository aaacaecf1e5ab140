"""Write what is generated in charts/: schemas and READMEs from values.yaml, and the pieces that charts share.

    .venv/bin/python scripts/charts.py          # or `make charts`

A value's comment is its documentation: `# --` and the lines after it, and `# @schema {...}` for what the default does
not say of its type. Each value has one, and the README's table and values.schema.json are made of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CHARTS = ROOT / "charts"
SHARED = "_shared"
BEGIN, END = "<!-- values: made by `make charts` -->", "<!-- end of values -->"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
# Copied from monitoring/, for a chart cannot read files beside it.
RULES, DASHBOARDS = "monitoring/prometheus/rules", "monitoring/grafana/dashboards"
COPIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "qdrant": {RULES: ("qdrant.yml", "cluster.yml")},
    "monitoring": {RULES: ("*.yml",), DASHBOARDS: ("*.json",)},
}


@dataclass(frozen=True)
class Value:
    """A documented value: where it is, its default, what it is for, what its schema says beside the default's type."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: Mapping[str, Any]


class Undocumented(ValueError):
    """A value without a comment."""


def values(text: str) -> list[Value]:
    """Every value of a values.yaml, in its order; raises :class:`Undocumented`."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return []
    return list(_values(root, yaml.safe_load(text), (), text.splitlines()))


def _values(
    node: yaml.MappingNode, found: Mapping[str, Any], above: tuple[str, ...], lines: list[str]
) -> Iterator[Value]:
    for key, value in node.value:
        path = (*above, key.value)
        default = found[key.value]
        description, schema = _comment(lines, key.start_mark.line)
        group = isinstance(value, yaml.MappingNode) and bool(value.value) and not schema
        if group:
            yield from _values(value, default, path, lines)
        elif not description:
            raise Undocumented(f"{'.'.join(path)} has no comment; write one, `# -- What it is for.`, above it.")
        else:
            yield Value(path, default, description, schema)


def _comment(lines: list[str], line: int) -> tuple[str, Mapping[str, Any]]:
    """The documentation and the schema in the comment above a line."""
    words: list[str] = []
    schema: Mapping[str, Any] = {}
    while line > 0 and (text := lines[line - 1].strip()).startswith("#"):
        line -= 1
        text = text.removeprefix("#").strip()
        if text.startswith("@schema "):
            schema = json.loads(text.removeprefix("@schema "))
        else:
            words.insert(0, text)
            if text.startswith("-- "):
                return " ".join(words).removeprefix("-- "), schema
    return "", schema


def schema(found: list[Value], title: str) -> dict[str, Any]:
    """The JSON schema of a chart's values; what is not in it is refused."""
    root = _object(found, ())
    # A chart that has this one as a part gives it its `global`.
    root["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title, **root}


def _object(found: list[Value], above: tuple[str, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for value in found:
        if value.path[: len(above)] != above:
            continue
        name = value.path[len(above)]
        if len(value.path) == len(above) + 1:
            kind = {"type": TYPES[type(value.default)]}
            properties[name] = {"description": value.description, **kind, **value.schema}
        elif name not in properties:
            properties[name] = _object(found, (*above, name))
    return {"type": "object", "additionalProperties": False, "properties": properties}


def table(found: list[Value]) -> str:
    """The values as a table of a README."""
    rows = [f"| `{'.'.join(v.path)}` | {v.description.replace('|', '&#124;')} | {_default(v.default)} |" for v in found]
    return "\n".join(["| value | what it is for | default |", "|---|---|---|", *rows])


def _default(default: Any) -> str:
    text = json.dumps(default, ensure_ascii=False).replace("|", "&#124;")
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


def readme(text: str, found: list[Value]) -> str:
    """A README with its table of values made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{after}"


def charts(directory: Path = CHARTS) -> list[Path]:
    """The directories of the charts."""
    return sorted(path.parent for path in directory.glob("*/Chart.yaml"))


def generated(directory: Path = CHARTS, root: Path = ROOT) -> dict[Path, str]:
    """Every generated file, with what it should say."""
    files: dict[Path, str] = {}
    for chart in charts(directory):
        title = yaml.safe_load((chart / "Chart.yaml").read_text())["description"]
        found = values((chart / "values.yaml").read_text())
        files[chart / "values.schema.json"] = json.dumps(schema(found, title), indent=2, ensure_ascii=False) + "\n"
        files[chart / "README.md"] = readme((chart / "README.md").read_text(), found)
        for shared in sorted((directory / SHARED).iterdir()):
            files[chart / "templates" / shared.name] = shared.read_text()
        for folder, names in COPIES.get(chart.name, {}).items():
            for source in sorted({path for name in names for path in (root / folder).glob(name)}):
                files[chart / "files" / Path(folder).name / source.name] = source.read_text()
    return files


def main() -> None:
    """Write what has changed, remove copies that have no source any more, and name both."""
    wanted = generated()
    for path, content in wanted.items():
        if not path.is_file() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"wrote {path.relative_to(ROOT)}")
    for path in stale(wanted):
        path.unlink()
        print(f"removed {path.relative_to(ROOT)}")


def stale(wanted: Mapping[Path, str], directory: Path = CHARTS) -> list[Path]:
    """Copies whose source is gone."""
    folders = [f"*/files/{Path(folder).name}/*" for folder in (RULES, DASHBOARDS)]
    return [path for folder in folders for path in sorted(directory.glob(folder)) if path not in wanted]


if __name__ == "__main__":
    main()
