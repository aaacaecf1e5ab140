"""A namespace, its secrets and its charts as pulumi_kubernetes' resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from plinth.kubernetes.client import STACK_LABEL

STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
STORAGE = "ephemeral-storage"


def provider(stack: str, kubeconfig: str | None, context: str | None) -> kubernetes.Provider:
    """The connection. It stays one and the same whatever a kubeconfig calls the cluster."""
    return kubernetes.Provider(
        "kubernetes",
        kubeconfig=None if kubeconfig is None else str(Path(kubeconfig).expanduser()),
        context=context,
        cluster_identifier=f"plinth-{stack}",
        # The namespace stays after `down`, and a run that was cut short has made more than it could write down.
        # Whose namespace it is was made sure of before.
        upsert_existing_objects=True,
        # A partition that was lowered by hand or by a run that was cut short goes back up.
        enable_patch_force=True,
        enable_secret_mutable=True,
        # Without it an Update of a ConfigMap would replace it under the pods that read it.
        enable_config_map_mutable=True,
    )


def namespace(name: str, stack: str, with_provider: kubernetes.Provider) -> kubernetes.core.v1.Namespace:
    """The namespace of a stack, where only Restricted pods may run. It holds the volumes' claims, so it stays."""
    return kubernetes.core.v1.Namespace(
        "namespace",
        metadata={
            "name": name,
            "labels": {
                STACK_LABEL: stack,
                **{f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")},
            },
        },
        opts=pulumi.ResourceOptions(provider=with_provider, retain_on_delete=True),
    )


def bounds(
    ephemeral_gib: int, within: kubernetes.core.v1.Namespace, with_provider: kubernetes.Provider
) -> list[pulumi.Resource]:
    """What all pods of a namespace may write on their machines' own disks, GiB; and what one that says nothing may."""
    core = kubernetes.core.v1
    metadata = kubernetes.meta.v1.ObjectMetaArgs(name=STORAGE, namespace=within.metadata.name)
    opts = pulumi.ResourceOptions(provider=with_provider)
    # Under a quota a container without a limit would not be let in.
    silent = core.LimitRangeItemArgs(type="Container", default={STORAGE: "512Mi"}, default_request={STORAGE: "64Mi"})
    hard = {f"limits.{STORAGE}": f"{ephemeral_gib}Gi"}
    return [
        core.LimitRange("limit-range", metadata=metadata, spec=core.LimitRangeSpecArgs(limits=[silent]), opts=opts),
        core.ResourceQuota("quota", metadata=metadata, spec=core.ResourceQuotaSpecArgs(hard=hard), opts=opts),
    ]


def secret(
    name: str,
    contents: Mapping[str, pulumi.Input[str]],
    within: kubernetes.core.v1.Namespace,
    with_provider: kubernetes.Provider,
) -> kubernetes.core.v1.Secret:
    """A Secret of a namespace; not its child, for it would inherit that it stays."""
    return kubernetes.core.v1.Secret(
        f"secret-{name}",
        metadata={"name": name, "namespace": within.metadata.name},
        type="Opaque",
        string_data=pulumi.Output.secret(dict(contents)),
        opts=pulumi.ResourceOptions(provider=with_provider),
    )


def chart(
    name: str,
    directory: Path,
    values: Mapping[str, Any],
    within: kubernetes.core.v1.Namespace,
    with_provider: kubernetes.Provider,
    needs: Sequence[pulumi.Resource],
    *,
    awaited: bool,
) -> kubernetes.helm.v4.Chart:
    """A chart of a directory, its StatefulSets protected and its claims kept.

    ``awaited`` is whether Pulumi waits for its objects: one whose pods are let go one by one is never as Pulumi would
    have it, so its own gate waits.
    """
    return kubernetes.helm.v4.Chart(
        name,
        name=name,
        chart=str(directory),
        namespace=within.metadata.name,
        values=dict(values),
        skip_await=not awaited,
        opts=pulumi.ResourceOptions(provider=with_provider, depends_on=list(needs), transforms=[_kept]),
    )


def known_or(value: pulumi.Output[str], otherwise: str) -> pulumi.Output[str]:
    """A value, or the other where a preview cannot know it yet.

    A chart of which anything is unknown is previewed without its objects, as if all that are there were to go; and as
    StatefulSets are protected, the preview would fail.
    """

    async def resolved() -> str:
        return str(await value.future()) if await value.is_known() else otherwise

    async def always() -> bool:
        return True

    return pulumi.Output(value.resources(), resolved(), always(), value.is_secret())


def _kept(arguments: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Refuse to delete or replace a StatefulSet, whose pods would all stop at once; never delete a claim, only let go.

    What Pulumi calls a replacement of a claim is then an update of the one that is there.
    """
    kept = {
        STATEFUL_SET: pulumi.ResourceOptions(protect=True),
        CLAIM: pulumi.ResourceOptions(retain_on_delete=True),
    }
    if arguments.type_ not in kept:
        return None
    options = pulumi.ResourceOptions.merge(arguments.opts, kept[arguments.type_])
    return pulumi.ResourceTransformResult(arguments.props, options)
