"""load/slo.yaml, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plinth.errors import UserError


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Model):
    """An operation's latency targets in milliseconds, and the requirement that they come from."""

    p95_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    page_ms: float | None = Field(None, gt=0, description="Past this p95 somebody is woken.")
    source: str
    what: str

    def at(self, percentile: int) -> float:
        """The target of a percentile, in milliseconds."""
        return self.p95_ms if percentile == 95 else self.p99_ms


class Recall(_Model):
    """Floors of recall@10, 0 to 1."""

    overall: float = Field(ge=0, le=1)
    large_tenant: float = Field(ge=0, le=1)


class Profile(_Model):
    """How much load, how long, and what is judged. Rates are requests a second over all operations."""

    percentile: Literal[95, 99]
    rate_per_s: float = Field(gt=0)
    warmup_s: float = Field(ge=0)
    duration_s: float = Field(gt=0)
    min_samples: int = Field(ge=1)
    points: int = Field(ge=100)
    queries: int = Field(ge=10)
    rounds: int = Field(1, ge=1, le=5, description="Rounds at most; see load/slo.yaml.")
    mix: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)


class Generator(_Model):
    """Bounds outside which the load generator, not the server, was measured."""

    min_achieved_share: float = Field(ge=0, le=1)
    max_lag_p95_ms: float = Field(gt=0)
    max_cpu_share: float = Field(gt=0, le=1)


class Slo(_Model):
    """Targets, floors and profiles."""

    operations: dict[str, Target]
    recall: Recall
    profiles: dict[str, Profile]
    generator: Generator

    def profile(self, name: str) -> Profile:
        """A profile by name; refuses one that is not there."""
        if name not in self.profiles:
            raise UserError(f"There is no load profile '{name}'; known are: {', '.join(sorted(self.profiles))}.")
        return self.profiles[name]


def load_slo(path: Path) -> Slo:
    """Read the file; raises :class:`UserError` naming the key that is wrong."""
    try:
        slo = Slo.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}; mend the file.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        said = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise UserError(f"{path}: {key}: {said}, got {first['input']!r}; correct it.") from None
    for name, profile in slo.profiles.items():
        unknown = set(profile.mix) - set(slo.operations)
        if unknown:
            raise UserError(f"{path}: profiles.{name}.mix names '{sorted(unknown)[0]}', which has no target; add one.")
    return slo
