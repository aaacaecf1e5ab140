"""The result of a comparison, for users and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from plinth.migrate.checkpoint import Checkpoint
from plinth.migrate.digest import shown
from plinth.migrate.verify import Verification


def report(
    plan: Mapping[str, Any],
    checkpoint: Checkpoint,
    found: Verification,
    reasons: Sequence[str],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Return the report: `verdict` is "equal" or "gap"; `reasons` explain a gap and are empty for "equal".

    `left_out` is what the source has and no point got; `as_text` counts the rows in which a number became text.
    """
    compared, progress = found.compared, checkpoint.progress
    return {
        "verdict": "gap" if reasons else "equal",
        "reasons": list(reasons),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": plan["namespace"],
        "to": plan["to"],
        "collection": plan["collection"],
        "copied": {"read": progress.read, "written": progress.written, "rejected": progress.rejected},
        "rows": compared.rows,
        "points": found.points,
        "equal": compared.equal,
        "missing": compared.missing,
        "different": compared.different,
        "rejected": compared.rejected,
        "other_points": found.others,
        "digest_source": shown(compared.digest_source),
        "digest_target": shown(compared.digest_target),
        "changed_since_copied": found.copied_digest is not None and found.copied_digest != compared.digest_source,
        "queries": found.searches.queries,
        "exact_overlap": found.searches.exact_overlap,
        "recall_at_10": found.searches.recall,
        "examples": list(compared.examples),
        "left_out": dict(left_out),
        "as_text": dict(compared.as_text),
    }


def lines(made: Mapping[str, Any]) -> list[str]:
    """Format the report as text."""
    said = [
        f"{made['source']} -> {made['collection']} at {made['to']}",
        f"  rows {made['rows']}, points {made['points']}: equal {made['equal']}, missing {made['missing']}, "
        f"different {made['different']}, rejected {made['rejected']}, of other origin {made['other_points']}",
        f"  digest of the rows   {made['digest_source']}",
        f"  digest of the points {made['digest_target']}",
    ]
    if made["queries"]:
        said.append(
            f"  nearest ten of {made['queries']} queries: exact search finds {made['exact_overlap']:.4f} of them, "
            f"usual search {made['recall_at_10']:.4f}"
        )
    said += [f"  {example}" for example in made["examples"]]
    said += [f"Gap: {reason}" for reason in made["reasons"]]
    said += [f"{name} is left out: {reason}" for name, reason in made["left_out"].items()]
    said += [
        f"As text: numbers of {name} in {rows} rows, which 64 bits do not hold"
        for name, rows in made["as_text"].items()
    ]
    if made["verdict"] == "equal" and (made["left_out"] or made["as_text"]):
        said.append("All else is as it was: nothing is lost, doubled or changed but what is named above.")
    elif made["verdict"] == "equal":
        said.append("Equal: nothing is lost, doubled or changed.")
    elif made["changed_since_copied"]:
        said.append("The source has changed since it was copied: plinth migrate verify --mend writes what changed.")
    return said
