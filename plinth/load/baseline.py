"""Whether a run is slower than an earlier one, by ratio; pure.

Absolute times differ from machine to machine, so only runs of the same kind on the same data and a like machine are
compared. An operation is slower when even the quickest it may be now is over the slowest it may have been then, by more
than the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from plinth.errors import UserError
from plinth.load.record import OperationRecord, ReportRecord

TOLERANCE = 1.1
ALIKE = ("profile", "protocol", "data", "machine")


def read(path: Path) -> ReportRecord:
    """A report that `--json-out` wrote; raises :class:`UserError`."""
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


def require_alike(now: ReportRecord, then: ReportRecord) -> None:
    """Refuse to compare what cannot be compared; raises :class:`UserError`."""
    if then.verdict == "void":
        raise UserError("The baseline is a void run, which says nothing; name one that passed.")
    for key in ALIKE:
        ours, theirs = getattr(now, key), getattr(then, key)
        if ours != theirs:
            raise UserError(
                f"The baseline differs in its {key} ('{theirs}', this run '{ours}'); measure one of the same kind."
            )


def slower(now: ReportRecord, then: ReportRecord, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Each operation that is surely slower than in the baseline, in words."""
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
