"""Moments that were written down, read by the clock of now: what a clock that was once ahead wrote is no past."""

from __future__ import annotations

from datetime import UTC, datetime

# Two machines differ by less, and a clock that is set back by less is no fault.
SKEW_S = 300.0


def past(moment: float | None, now: float) -> float | None:
    """The moment (Unix seconds), or None for one that is ahead of the clock, or is none."""
    return moment if moment is not None and moment <= now + SKEW_S else None


def date(moment: float) -> str:
    """The moment for people, in UTC; far ones by their year."""
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {moment:g}"
