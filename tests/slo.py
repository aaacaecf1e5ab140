"""load/slo.yaml for runs of seconds, with targets that any machine meets: what is tried is not its speed."""

from __future__ import annotations

from typing import Any

import yaml

from tests.conftest import ROOT

# A profile of seconds, whose data is generated where it is needed: no image has to hold a set for it.
SHORT: dict[str, Any] = {
    "percentile": 95,
    "confidence": 0.5,
    "data": {"source": "generated", "points": 400, "queries": 40, "dimensions": 384},
    "rate_per_s": 30,
    "warmup_s": 0.5,
    "duration_s": 3,
    "min_samples": 5,
    "mix": {"search": 1},
}


def unhurried(profiles: dict[str, dict[str, Any]]) -> str:
    """The shipped file with other profiles beside smoke, or in its place."""
    slo = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())
    for target in slo["operations"].values():
        target |= {"p95_ms": 10_000, "p99_ms": 10_000}
    slo["profiles"] = {"smoke": slo["profiles"]["smoke"], **profiles}
    slo["generator"] = {"min_achieved_share": 0.5, "max_lag_p95_ms": 5000, "min_headroom": 1}
    return yaml.safe_dump(slo)
