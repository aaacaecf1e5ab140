"""`ClusterReady`: the gate between one node of a cluster and the next.

A node that answers may still be catching up. The next node waits until every replica is active as another node sees it,
so that a change goes through the cluster without ever taking two copies of a shard away.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from plinth.errors import UserError
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.cluster import unsettled
from plinth.qdrant.cluster_observer import listens, observe, observe_others
from plinth.resources.base import Provider, optional_secret, to_json

INTERVAL_S = 0.5
TIMEOUT_S = 10.0


def wait_settled(
    name: str, urls: Sequence[str], node: int, api_key: str | None, deadline_s: float, ca_cert: str | None = None
) -> None:
    """Poll until the node is ready in its cluster; past the deadline raise with the reason why it is not."""
    end = time.monotonic() + deadline_s
    while True:
        # Nodes start in their order: this one has all those before it for peers.
        lacking = lacks(urls, node, api_key, ca_cert, expected=node + 1)
        if lacking is None:
            return
        if time.monotonic() > end:
            raise UserError(
                f"{name} is not settled in its cluster after {deadline_s:.0f} s: {lacking}; "
                "no other node was touched. Mend the cause and run up again.",
                exit_code=1,
            )
        time.sleep(INTERVAL_S)


def lacks(
    urls: Sequence[str], node: int, api_key: str | None, ca_cert: str | None = None, *, expected: int
) -> str | None:
    """Return why a node is not ready in its cluster of at least ``expected`` peers, or None."""
    try:
        with Qdrant(urls[node], api_key, TIMEOUT_S, ca_cert) as client:
            own = observe(client)
    except QdrantError as error:
        return str(error)
    rest = [url for number, url in enumerate(urls) if number != node]
    others = observe_others(rest, api_key, TIMEOUT_S, ca_cert)
    if not others and not any(listens(url) for url in rest):
        # The whole cluster was stopped. The others start after this one, so there is no node to wait for yet.
        return None
    return unsettled(own, others, expected=expected)


class ClusterReadyProvider(Provider):
    """Polls the cluster whenever a node was restarted."""

    compared = ("urls", "node", "instance")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait until the node is ready."""
        _wait(props)
        return CreateResult(props["name"], props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Wait until the new instance is ready."""
        _wait(_news)
        return UpdateResult(_news)


class ClusterReady(Resource, module="plinth", name="ClusterReady"):
    """Exists once a node is in its cluster and every replica is active."""

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        node: int,
        *,
        instance: pulumi.Input[str],
        deadline_s: float,
        api_key: pulumi.Input[str] | None,
        ca_cert: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the gate of one node.

        ``urls`` are all nodes' addresses in their order, ``node`` the number of this one; ``deadline_s`` is in seconds.
        """
        super().__init__(
            ClusterReadyProvider(),
            f"{name}-cluster-ready",
            {
                "name": name,
                "urls": to_json(list(urls)),
                "node": str(node),
                "instance": instance,
                "deadline_s": str(deadline_s),
                "api_key": optional_secret(api_key),
                "ca_cert": ca_cert,
            },
            opts,
        )


def _wait(props: dict[str, Any]) -> None:
    wait_settled(
        props["name"],
        json.loads(props["urls"]),
        int(props["node"]),
        props.get("api_key"),
        float(props["deadline_s"]),
        props.get("ca_cert"),
    )
