"""What has run over the data of an environment, for what a deploy may refuse."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from plinth.deployment.deployed_versions import Deployed, settled
from plinth.deployment.reach import reach
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.paths import last_deployed
from plinth.qdrant.client import Qdrant

# A server that takes longer is none that answers.
TIMEOUT_S = 2.0


def before(stack: Stack, recorded: Deployed | None, *, forget: bool = False) -> Deployed:
    """What ran before this run; the servers are asked where the last run may have failed.

    ``recorded`` is what the state has of it; ``forget`` as in :func:`plinth.deployment.deployed_versions.settled`.
    """
    ended_well = cast("Deployed", last_deployed(stack.home) or {})
    if not recorded or recorded == ended_well:
        return ended_well
    return settled(recorded, ended_well, _versions(stack, stack.outputs()["qdrant"]), forget=forget)


def _versions(stack: Stack, where: dict[str, Any]) -> list[str | None]:
    # A cluster that cannot be reached is one whose nodes do not answer.
    with suppress(UserError):
        reach(stack)
    return [_version(url, where.get("ca_cert")) for url in where.get("nodes", {"": where["url"]}).values()]


def _version(url: str, ca_cert: str | None) -> str | None:
    try:
        with Qdrant(url, timeout_s=TIMEOUT_S, ca_cert=ca_cert) as client:
            return client.banner().split()[-1]
    except UserError:
        return None
