"""Format backups as lines for people and as JSON for machines."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plinth.system.timestamps import date, past

if TYPE_CHECKING:
    from plinth.backup.drill import Drilled
    from plinth.backup.inspection import Checked, Set, Verified
    from plinth.backup.restore import Restored
    from plinth.backup.run import Taken


def size(count: float) -> str:
    """Format bytes in a readable unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def moment(at: float) -> str:
    """Format a time in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def taken_lines(taken: Taken) -> list[str]:
    """Format the result of a backup as lines."""
    manifest = taken.manifest
    kind = "complete" if manifest.complete else "INCOMPLETE"
    return [
        f"Set {taken.snapshot[:8]} is {kind}: {size(manifest.data)} in {taken.seconds:.1f} s, "
        f"{size(taken.added)} of it new.",
        *(f"  lacking: {sentence}" for sentence in manifest.failures),
        *(f"  not taken: {store}: {why}" for store, why in manifest.not_taken.items()),
    ]


def taken_json(taken: Taken) -> dict[str, Any]:
    """Return the result of a backup as JSON."""
    return {
        "snapshot": taken.snapshot,
        "complete": taken.manifest.complete,
        "bytes": taken.manifest.size,
        "data_bytes": taken.manifest.data,
        "bytes_added": taken.added,
        "seconds": round(taken.seconds, 3),
        "stores": taken.manifest.stores,
        "failures": list(taken.manifest.failures),
        "not_taken": taken.manifest.not_taken,
    }


def restored_lines(restored: Restored, into: str) -> list[str]:
    """Format the result of a restore, one line for each restored item."""
    snapshot, seconds = restored.snapshot, sum(restored.seconds.values())
    return [
        *restored.done,
        f"Set {snapshot.short} of {moment(snapshot.at)} is restored into '{into}' in {seconds:.1f} s.",
    ]


def restored_json(restored: Restored) -> dict[str, Any]:
    """Return the result of a restore as JSON."""
    seconds = {store: round(took, 3) for store, took in restored.seconds.items()}
    return {"snapshot": restored.snapshot.id, "done": restored.done, "seconds": seconds}


def set_json(each: Set) -> dict[str, Any]:
    """Return one set of the repository as JSON."""
    known = each.manifest
    return {
        "snapshot": each.snapshot.id,
        "at": each.snapshot.at,
        "complete": each.snapshot.complete,
        "bytes": known.size if known else None,
        "data_bytes": known.data if known else None,
        "stores": known.stores if known else {},
        "failures": list(known.failures) if known else ["its manifest cannot be read"],
        "points": {c.name: c.points.high if c.points else None for c in known.qdrant.collections}
        if known and known.qdrant
        else {},
        "databases": [database.name for database in known.postgres.databases] if known and known.postgres else [],
        "nodes": sum(each.count for each in known.neo4j.nodes) if known and known.neo4j else None,
        "revision": known.revision if known else None,
    }


def set_line(each: Set) -> str:
    """Format one set of the repository as a line."""
    known = set_json(each)
    stores = ", ".join(
        store if result == "ok" else f"{store} {result.upper()}" for store, result in known["stores"].items()
    )
    kind = "complete  " if known["complete"] else "INCOMPLETE"
    bytes_ = size(known["data_bytes"]) if known["data_bytes"] is not None else "?"
    return f"{each.snapshot.short}  {moment(each.snapshot.at)}  {kind}  {bytes_:>10}  {stores}"


def verified_lines(verified: Verified) -> list[str]:
    """Format the result of a verification as lines."""
    manifest = verified.manifest
    if manifest and not verified.problems:
        return [
            f"Set {verified.snapshot.short} is as it was saved: {len(manifest.pieces)} files, {size(manifest.size)}."
        ]
    return [f"Set {verified.snapshot.short} cannot be relied on:", *(f"  {problem}" for problem in verified.problems)]


def verified_json(verified: Verified) -> dict[str, Any]:
    """Return the result of a verification as JSON."""
    return {
        "snapshot": verified.snapshot.id,
        "complete": verified.snapshot.complete,
        "bytes": verified.manifest.size if verified.manifest else None,
        "problems": list(verified.problems),
    }


def checked_lines(checked: Checked) -> list[str]:
    """Format the result of a check, claiming only what it read."""
    if checked.parts == 1:
        return [f"The repository is whole: {checked.share}."]
    return [f"The repository's structure is whole, and {checked.share}, which is whole; `--all` reads the rest too."]


def checked_json(checked: Checked) -> dict[str, Any]:
    """Return the result of a check as JSON; ``whole`` is about the data that was read."""
    return {"whole": True, "part": checked.part, "parts": checked.parts, "packs": checked.packs or None}


def drilled_lines(drilled: Drilled) -> list[str]:
    """Format the result of a drill as lines."""
    lines = [
        f"Set {drilled.snapshot.short}, {_old(drilled.manifest.ended_at, time.time())}, "
        + ("did NOT come back as it was saved." if drilled.result == "failed" else "came back as it was saved.")
    ]
    for store, said in drilled.told.items():
        lines.append(f"  {store:<10} {drilled.seconds[store]:8.1f} s  {'; '.join(said) or 'as it was saved'}")
    return [*lines, *(f"  lacking: {sentence}" for sentence in drilled.manifest.failures)]


def drilled_json(drilled: Drilled) -> dict[str, Any]:
    """Return the result of a drill as JSON."""
    return {
        "snapshot": drilled.snapshot.id,
        "result": drilled.result,
        "at": drilled.manifest.ended_at,
        "seconds": {store: round(seconds, 3) for store, seconds in drilled.seconds.items()},
        "problems": {store: list(problems) for store, problems in drilled.problems.items()},
        "unproven": drilled.unproven,
    }


def _old(moment: float, now: float) -> str:
    if past(moment, now) is None:
        return f"dated {date(moment)}, ahead of this clock"
    return f"{max(0.0, now - moment) / 3600:.1f} h old"
