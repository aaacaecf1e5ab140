"""The typed content of load/slo.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from plinth.errors import UserError
from plinth.system.strict_model import StrictModel
from plinth.system.yaml_files import read_yaml

CREATE = "create_collection"
Through = Literal["qdrant", "gateway"]


class Target(StrictModel):
    """The latency targets of an operation in milliseconds, and the requirement that they come from."""

    p95_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    page_ms: float | None = Field(None, gt=0, description="Past this p95 somebody is woken.")
    source: str
    what: str

    def at(self, percentile: int) -> float:
        """Return the target of a percentile, in milliseconds."""
        return self.p95_ms if percentile == 95 else self.p99_ms


class Promises(StrictModel):
    """The objectives that alerts check on a running environment; shares are 0 to 1."""

    within_target: float = Field(gt=0, lt=1, description="Answers within a latency target; .95 makes it a p95.")
    availability: float = Field(gt=0, lt=1, description="Requests that are not answered with a server's error.")
    backup_age_h: float = Field(gt=0)
    drill_age_days: float = Field(gt=0)


class Recall(StrictModel):
    """The floors of recall@10, 0 to 1. A tenant is large with more than 5 % of the points.

    ``tenant_band`` is for the tenants of each size together: over 5 %, 1 to 5 %, under 1 %.
    """

    overall: float = Field(ge=0, le=1)
    tenant_band: float = Field(ge=0, le=1)
    large_tenant: float = Field(ge=0, le=1)


class Data(StrictModel):
    """The searched data: WordNet's glosses as embedded by MiniLM (384), or generated vectors of any dimension."""

    source: Literal["wordnet", "generated"]
    points: int = Field(ge=100)
    queries: int = Field(ge=10)
    dimensions: int = Field(384, ge=2, le=65536)
    tenants: int = Field(50, ge=1)

    @model_validator(mode="after")
    def _embedded(self) -> Self:
        if self.source == "wordnet" and self.dimensions != 384:
            raise ValueError("wordnet has 384 dimensions; leave `dimensions` out, or set source to generated")
        return self


class Profile(StrictModel):
    """A load profile: how much load, for how long, and what is judged.

    Rates are requests per second over all operations. With ``steps`` the rates are tried in turn until one is missed,
    and ``rate_per_s`` is the lowest that has to pass.
    """

    percentile: Literal[95, 99]
    confidence: float = Field(ge=0.5, lt=1, description="That a percentile lies in its interval.")
    data: Data
    rate_per_s: float = Field(gt=0)
    steps: tuple[Annotated[float, Field(gt=0)], ...] = ()
    warmup_s: float = Field(ge=0)
    duration_s: float = Field(gt=0)
    min_samples: int = Field(ge=1)
    rounds: int = Field(1, ge=1, le=5, description="Rounds at most; see load/slo.yaml.")
    creations: int = Field(0, ge=0, description="Collections made one after the other before the run.")
    processes: int = Field(1, ge=1, le=64, description="Locust workers that share the rate.")
    through: Through = Field("qdrant", description="What is asked: Qdrant, or the gateway before it.")
    mix: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _climbs(self) -> Self:
        if self.steps and (list(self.steps) != sorted(set(self.steps)) or self.rate_per_s not in self.steps):
            raise ValueError("steps must rise, and rate_per_s must be one of them")
        return self

    def operations(self) -> list[str]:
        """Return the operations that a run of this profile measures."""
        return [*self.mix, *([CREATE] if self.creations else [])]


class Generator(StrictModel):
    """Bounds outside of which the load generator, and not the server, was measured."""

    min_achieved_share: float = Field(ge=0, le=1)
    max_lag_p95_ms: float = Field(gt=0)
    min_headroom: float = Field(ge=1, description="The generator's ceiling as a multiple of the rate.")


class AddedByGateway(StrictModel):
    """What the gateway may add to a search: milliseconds at p95, and CPU as a multiple of Qdrant's own for it."""

    p95_ms: float = Field(gt=0)
    cpu_ratio: float = Field(gt=0)
    source: str


class Claim(StrictModel):
    """A bound on a figure of the stores whose names begin with one of ``of``.

    ``memory_ratio`` is a store's memory over that of the store ``beside``.
    """

    what: str
    of: tuple[str, ...] = Field(min_length=1)
    figure: Literal["p95_ms", "searches_per_s", "memory_ratio"]
    beside: str | None = None
    at_most: float | None = Field(None, gt=0)
    at_least: float | None = Field(None, gt=0)
    decides: bool = Field(False, description="Missing it fails the comparison.")
    source: str

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("a claim has either at_most or at_least")
        if (self.figure == "memory_ratio") != (self.beside is not None):
            raise ValueError("a memory_ratio, and no other figure, names the store that it is `beside`")
        return self


class Comparison(StrictModel):
    """What `make compare` measures, and the claims that it judges."""

    data: Data
    recall: float = Field(ge=0, le=1, description="recall@10 that every store is set to.")
    clients: int = Field(ge=1, le=64)
    rounds: int = Field(ge=1)
    duration_s: float = Field(gt=0, description="Of each measurement of a round.")
    confidence: float = Field(ge=0.5, le=0.99)
    min_samples: int = Field(ge=200, description="So many bound a p95 with any confidence that is asked for.")
    max_busy: float = Field(gt=0, le=1, description="Of all cores, by other programs.")
    claims: tuple[Claim, ...] = ()


class Slo(StrictModel):
    """Targets, floors, profiles, and the claims about other stores."""

    operations: dict[str, Target]
    promises: Promises
    recall: Recall
    profiles: dict[str, Profile]
    generator: Generator
    gateway: AddedByGateway | None = Field(None, description="Only `--against direct` asks for it.")
    comparison: Comparison | None = Field(None, description="Only `make compare` asks for it.")

    def profile(self, name: str) -> Profile:
        """Return a profile by name. Refuses an unknown one."""
        if name not in self.profiles:
            raise UserError(f"There is no load profile '{name}'; known are: {', '.join(sorted(self.profiles))}.")
        return self.profiles[name]


def load_slo(path: Path) -> Slo:
    """Read the file. Raises :class:`UserError` with the name of the key that is wrong."""
    try:
        slo = Slo.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        said = first["msg"].removeprefix("Value error, ")
        got = (
            f", got {first['input']!r}"
            if not isinstance(first["input"], dict) or first["type"] != "value_error"
            else ""
        )
        raise UserError(f"{path}: {key}: {said[0].lower()}{said[1:]}{got}; correct it.") from None
    for name, profile in slo.profiles.items():
        unknown = set(profile.operations()) - set(slo.operations)
        if unknown:
            raise UserError(f"{path}: profiles.{name}.mix names '{sorted(unknown)[0]}', which has no target; add one.")
    return slo
