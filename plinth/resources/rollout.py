"""`Rollout`: a StatefulSet's pods updated one by one, each once the cluster of its nodes is ready again.

The chart holds every pod at its old revision with the partition. This lowers it pod by pod, and raises it again at the
end and after a failure, so that no pod that restarts by itself is updated out of order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from plinth.errors import UserError
from plinth.kubernetes.rolling_update_plan import Rolled
from plinth.resources.base import Provider, optional_secret, to_json
from plinth.resources.cluster_ready import lacks

if TYPE_CHECKING:
    from plinth.kubernetes.client import Cluster


class RolloutProvider(Provider):
    """Rolls the pods whenever the chart's values changed, or a refresh found pods of an old revision."""

    compared = ("rolled", "urls", "instance", "drift")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait until the nodes are ready, and roll the pods of an old revision."""
        _roll(props)
        return CreateResult(_rolled(props).workload, {**props, "drift": ""})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Report which pods run an old revision."""
        rolled = _rolled(props)
        try:
            seen = _cluster(rolled).workload(rolled.workload, rolled.selector)
        except UserError:
            # The cluster is unreachable, which its own resources report; that tells nothing about the pods.
            return ReadResult(id_, props)
        outdated = seen.outdated if seen else []
        drift = f"pods {', '.join(map(str, outdated))} run an old revision" if outdated else ""
        return ReadResult(id_, {**props, "drift": drift})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Roll the pods of an old revision."""
        _roll(_news)
        return UpdateResult({**_news, "drift": ""})


class Rollout(Resource, module="plinth", name="Rollout"):
    """Exists once every pod of a StatefulSet runs the last revision and its nodes are ready."""

    def __init__(
        self,
        rolled: Rolled,
        urls: Sequence[str],
        *,
        instance: pulumi.Input[str],
        deadline_s: float,
        api_key: pulumi.Input[str] | None,
        ca_cert: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the rollout; ``urls`` are the nodes' addresses in order; ``deadline_s`` is in seconds per pod."""
        super().__init__(
            RolloutProvider(),
            f"{rolled.workload}-rollout",
            {
                "rolled": to_json(vars(rolled)),
                "urls": to_json(list(urls)),
                "instance": instance,
                "deadline_s": str(deadline_s),
                "api_key": optional_secret(api_key),
                "ca_cert": ca_cert,
                "drift": "",
            },
            opts,
        )


def _roll(props: dict[str, Any]) -> None:
    from plinth.kubernetes.rolling_update import roll

    urls, rolled = json.loads(props["urls"]), _rolled(props)

    def lacking() -> str | None:
        found = (
            lacks(urls, node, props.get("api_key"), props.get("ca_cert"), expected=len(urls))
            for node in range(len(urls))
        )
        return next((words for words in found if words), None)

    roll(_cluster(rolled), rolled, lacking, float(props["deadline_s"]))


def _rolled(props: dict[str, Any]) -> Rolled:
    return Rolled(**json.loads(props["rolled"]))


def _cluster(rolled: Rolled) -> Cluster:
    # Importing the client takes a second, which every provider process of every target would pay.
    from plinth.kubernetes.client import Cluster

    return Cluster(rolled.kubeconfig, rolled.context, rolled.namespace)
