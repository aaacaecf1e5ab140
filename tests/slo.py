"""load/slo.yaml for runs of seconds, with targets that any machine meets: what is tried is not its speed."""

from __future__ import annotations

from typing import Any

import yaml

from tests.conftest import ROOT


def unhurried(profiles: dict[str, dict[str, Any]]) -> str:
    """The shipped file with other profiles beside smoke, or in its place."""
    slo = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())
    for target in slo["operations"].values():
        target |= {"p95_ms": 10_000, "p99_ms": 10_000}
    slo["profiles"] = {"smoke": slo["profiles"]["smoke"], **profiles}
    slo["generator"] = {"min_achieved_share": 0.5, "max_lag_p95_ms": 5000, "min_headroom": 1}
    return yaml.safe_dump(slo)
