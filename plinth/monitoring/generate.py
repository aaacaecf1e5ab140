"""The generated files of monitoring/, by path: `make monitoring` writes them, and a test compares them.

They are committed instead of created at a deploy: charts and people read the same text, and a review shows the changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from plinth.load.slo import load_slo
from plinth.monitoring.dashboards import (
    backups,
    cluster,
    collections,
    gateway,
    host,
    load,
    logs,
    overview,
    postgres_redis,
    qdrant,
)
from plinth.monitoring.dashboards.builder import to_json
from plinth.monitoring.slo_rules import rule_groups

DASHBOARDS = "monitoring/grafana/dashboards"
BOARDS = (
    overview.overview,
    qdrant.qdrant,
    collections.collections,
    cluster.cluster,
    postgres_redis.postgres,
    postgres_redis.redis,
    gateway.gateway,
    host.host,
    backups.backups,
    load.load,
    logs.logs,
)
RULES = "monitoring/prometheus/rules/slo.yml"
_HEAD = "# Written by `make monitoring` from load/slo.yaml: change that file, not this one.\n"


class _Text(yaml.SafeDumper):
    """A YAML dumper that keeps multi-line texts on several lines."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Text.add_representer(str, _string)


def generated(root: Path) -> dict[str, str]:
    """Return the content of every generated file by its path below ``root``."""
    slo = load_slo(root / "load" / "slo.yaml")
    boards = [make(slo) for make in BOARDS]
    return {
        RULES: _HEAD + _yaml({"groups": rule_groups(slo)}),
        **{f"{DASHBOARDS}/{board.uid.removeprefix('plinth-')}.json": to_json(board) for board in boards},
    }


def _yaml(document: Any) -> str:
    return yaml.dump(document, Dumper=_Text, sort_keys=False, width=10_000, allow_unicode=True)
