"""Whether a run is slower than an earlier one, by ratio; pure.

Absolute times differ from machine to machine, so only runs of the same kind on the same data and similar machines are
compared. An operation is slower when the lower bound of its new latency exceeds the upper bound of the old one by more
than the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from plinth.errors import UserError
from plinth.load.report_schema import OperationRecord, ReportRecord
from plinth.load.verdict import Verdict

TOLERANCE = 1.1


@dataclass(frozen=True)
class Kind:
    """What two runs must have in common to be compared; ``rate_per_s`` is the first one of a step test."""

    profile: str
    protocol: str
    rate_per_s: float
    data: str
    machine: str


def read(path: Path) -> ReportRecord:
    """Read a report of `--json-out`. Raises :class:`UserError`."""
    try:
        return ReportRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name a report that --json-out wrote.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "it"
        raise UserError(
            f"{path} is no report of this version ({key}: {first['msg'].lower()}); measure a new baseline."
        ) from None


def kind(then: ReportRecord) -> Kind:
    """Return the kind of run of a report."""
    return Kind(then.profile, then.protocol, then.steps[0].rate_per_s, then.data, then.machine)


def require_alike(now: Kind, then: ReportRecord) -> None:
    """Refuse before a run to compare different kinds. Raises :class:`UserError`."""
    if then.verdict == "void":
        raise UserError("The baseline is a void run, which says nothing; name one that passed.")
    for key, theirs in vars(kind(then)).items():
        ours = getattr(now, key)
        if ours != theirs:
            raise UserError(
                f"The baseline differs in its {key} ('{theirs}', this run '{ours}'); measure one of the same kind."
            )


def verdict(now: ReportRecord, then: ReportRecord, max_lag_p95_ms: float) -> Verdict:
    """Judge a run against the baseline: fail where an operation is certainly slower.

    A run is void where the generator was late, as for a target. It is also void on another machine than the baseline's,
    which is known only after a run that is carried out remotely.
    """
    if now.machine != then.machine:
        return Verdict("void", (f"the baseline is of another machine ('{then.machine}', this run '{now.machine}')",))
    found = tuple(slower(now, then))
    if not found:
        return Verdict("pass")
    lag = now.generator.lag_p95_ms
    if lag <= max_lag_p95_ms:
        return Verdict("fail", found)
    late = f"the generator ran {lag:.1f} ms late at the 95th percentile: this machine is too busy to compare on"
    return Verdict("void", (late, *found))


def slower(now: ReportRecord, then: ReportRecord, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Yield a message for each operation that is certainly slower than in the baseline."""
    for name, found in now.operations.items():
        before = then.operations.get(name)
        if before is None:
            continue
        low, _ = _judged(found, now.percentile)
        _, high = _judged(before, now.percentile)
        if high is not None and low > tolerance * high:
            times = f"at least {low / high:.2f} times the baseline's ({low:.1f} against {high:.1f} ms)"
            yield f"{name}: p{now.percentile} is {times}"


def _judged(operation: OperationRecord, percentile: int) -> tuple[float, float | None]:
    if percentile == 95:
        return operation.p95_low_ms, operation.p95_high_ms
    return operation.p99_low_ms, operation.p99_high_ms
