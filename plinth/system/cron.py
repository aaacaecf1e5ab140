"""Cron expressions: five fields, in UTC, that match at least one future time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

EXAMPLE = "0 3 * * *"


def _cron(expression: str) -> str:
    """Return the expression with one space between fields; raises ValueError if it is invalid or matches no time."""
    fields = expression.split()
    if len(fields) != 5 or not expression.isascii():
        raise ValueError(f"a cron expression has five fields, such as '{EXAMPLE}'")
    try:
        next(CronSim(" ".join(fields), datetime.now(UTC)))
    except StopIteration:
        raise ValueError(f"no day is ever that day; name one that comes, such as '{EXAMPLE}'") from None
    except (CronSimError, AssertionError) as error:
        raise ValueError(f"this is no cron expression ({error}); write one such as '{EXAMPLE}'") from None
    return " ".join(fields)


Cron = Annotated[str, AfterValidator(_cron)]
