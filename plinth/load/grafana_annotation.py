"""An annotation in Grafana for each load run, so that a dip in a graph is explained."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx

from plinth.load.report import Report
from plinth.system.http_client import client_for

TIMEOUT_S = 5.0


def annotate(grafana: Mapping[str, Any], report: Report, seconds: float) -> str | None:
    """Annotate the run's ``seconds`` up to its end; return a message where that failed, else None.

    The verdict of the run does not depend on it.
    """
    end = datetime.fromisoformat(report.at).timestamp()
    body = {
        "time": round((end - seconds) * 1000),
        "timeEnd": round(end * 1000),
        "tags": ["plinth", "load", report.verdict.word],
        "text": f"Load gate {report.profile}: {report.verdict.word}. {' '.join(report.verdict.reasons)}".strip(),
    }
    try:
        with client_for(grafana["url"], timeout=TIMEOUT_S) as client:
            login = (grafana["user"], grafana["password"])
            answer = client.post("/api/annotations", json=body, auth=login)
    except httpx.HTTPError as error:
        return f"Grafana at {grafana['url']} did not take the run's mark ({type(error).__name__})"
    return None if answer.is_success else f"Grafana answered {answer.status_code} to the run's mark"
