"""What has run over the data of an environment: by its records, and by the servers that answer.

Pulumi writes the outputs of a run that failed as it does those of one that ended well. So a version there may never
have been started, or may have served for days. A server that answers settles it for its node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from plinth.system.versions import numbers

VERSIONS: tuple[Literal["qdrant_version", "qdrant_newest"], ...] = ("qdrant_version", "qdrant_newest")


class Deployed(TypedDict, total=False):
    """What ran over the data last.

    ``qdrant_version`` is the oldest that a node may have, ``qdrant_newest`` the newest where a run that did not end
    well leaves that open, ``qdrant_nodes`` the most that there may be.
    """

    qdrant_version: str
    qdrant_newest: str
    qdrant_nodes: int


def settled(recorded: Deployed, ended_well: Deployed, answers: Sequence[str | None], *, forget: bool) -> Deployed:
    """What ran, where the last run may have failed.

    ``recorded`` is what the last run was to deploy, ``ended_well`` what the last one did that ended well, ``answers``
    the version that each node tells, None for one that does not answer. Such a node may have either version;
    ``forget`` takes a run that failed for one that never started there.
    """
    records = [ended_well] if forget else [recorded, ended_well]
    known = {one[key] for one in records for key in VERSIONS if key in one}
    versions = sorted((known if None in answers else set()) | set(filter(None, answers)), key=numbers)
    if not versions:
        return {}
    nodes = max(recorded.get("qdrant_nodes", 1), ended_well.get("qdrant_nodes", 1))
    return {"qdrant_version": versions[0], "qdrant_newest": versions[-1], "qdrant_nodes": nodes}
