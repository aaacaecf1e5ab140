"""A client of the Kubernetes API, for reads and changes in addition to Pulumi's resources.

Pulumi's provider creates the objects. This client checks before it does, expands volumes, restarts pods one by one, and
forwards connections into pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.utils.quantity import parse_quantity

from plinth.errors import UserError
from plinth.kubernetes.rolling_update_plan import Pod, Workload
from plinth.kubernetes.volume_expansion_plan import Claim, Templates
from plinth.system.http_client import proxy_for

STACK_LABEL = "plinth.dev/stack"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
REVISION = "controller-revision-hash"
TIMEOUT_S = 15.0


class Cluster:
    """One namespace of a cluster; raises :class:`UserError` where the API refuses or does not answer."""

    def __init__(self, kubeconfig: str | None, context: str | None, namespace: str) -> None:
        """Load the file ``kubeconfig`` with its ``context``; the client's defaults when absent."""
        self.kubeconfig, self.context, self.namespace = kubeconfig, context, namespace
        try:
            self._api = _api_client(str(Path(kubeconfig).expanduser()) if kubeconfig else None, context)
        except (config.ConfigException, OSError) as error:
            raise UserError(
                f"No cluster is known ({_words(error)}): KUBECONFIG or ~/.kube/config must name one; get a kubeconfig "
                "from who runs the cluster, or name a file and a context with plinth:kubernetes.kubeconfig and "
                "plinth:kubernetes.context."
            ) from error
        self._core, self._apps = client.CoreV1Api(self._api), client.AppsV1Api(self._api)
        self._storage = client.StorageV1Api(self._api)

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    @property
    def api(self) -> client.ApiClient:
        """The Kubernetes client, for other APIs."""
        return self._api

    @property
    def configuration(self) -> Any:
        """The client's configuration, for other kinds of connection."""
        return self._api.configuration

    def version(self) -> str:
        """Return the API server's version; the cheapest proof that it answers."""
        with self.sentences("asking its version"):
            return str(client.VersionApi(self._api).get_code(_request_timeout=TIMEOUT_S).git_version)

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Return whether this account has a permission in the namespace."""
        name, _, part = resource.partition("/")
        asked = client.V1ResourceAttributes(
            verb=verb, group=group, resource=name, subresource=part or None, namespace=self.namespace
        )
        review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
        with self.sentences("asking what this account may do"):
            found = client.AuthorizationV1Api(self._api).create_self_subject_access_review(
                review, _request_timeout=TIMEOUT_S
            )
        return bool(found.status.allowed)

    def namespace_labels(self) -> Mapping[str, str] | None:
        """Return the labels of the namespace, or None when it does not exist."""
        with self.sentences(f"reading the namespace {self.namespace}"):
            found = self.or_none(self._core.read_namespace, self.namespace)
            return None if found is None else dict(found.metadata.labels or {})

    def pods(self, selector: str) -> list[Any]:
        """Return the pods that a label selector matches."""
        with self.sentences(f"listing pods in {self.namespace}"):
            found = self._core.list_namespaced_pod(self.namespace, label_selector=selector, _request_timeout=TIMEOUT_S)
            return list(found.items)

    def templates(self, workload: str) -> Templates | None:
        """Return the claim templates of a StatefulSet, or None when it does not exist."""
        with self.sentences(f"reading the StatefulSet {workload}"):
            found = self.or_none(self._apps.read_namespaced_stateful_set, workload, self.namespace)
        if found is None:
            return None
        sizes = {claim.metadata.name: _storage_of(claim) for claim in found.spec.volume_claim_templates or ()}
        return Templates(workload, sizes)

    def claims(self) -> list[Claim]:
        """Return every volume claim of the namespace."""
        with self.sentences(f"listing volume claims in {self.namespace}"):
            found = self._core.list_namespaced_persistent_volume_claim(self.namespace, _request_timeout=TIMEOUT_S)
        return [
            Claim(
                claim.metadata.name,
                _storage_of(claim),
                claim.spec.storage_class_name,
                claim.status.phase != "Pending",
                claim.metadata.resource_version,
            )
            for claim in found.items
        ]

    def expandable(self) -> dict[str, bool]:
        """Return whether the volumes of each storage class can grow."""
        with self.sentences("listing storage classes"):
            found = self._storage.list_storage_class(_request_timeout=TIMEOUT_S)
        return {known.metadata.name: bool(known.allow_volume_expansion) for known in found.items}

    def default_class(self) -> str | None:
        """Return the storage class of claims that name none."""
        with self.sentences("listing storage classes"):
            found = self._storage.list_storage_class(_request_timeout=TIMEOUT_S)
        names = [k.metadata.name for k in found.items if (k.metadata.annotations or {}).get(DEFAULT_CLASS) == "true"]
        return min(names, default=None)

    def expand(self, claim: str, size: int) -> None:
        """Request a larger size for a claim; ``size`` in bytes."""
        body = {"spec": {"resources": {"requests": {"storage": str(size)}}}}
        with self.sentences(f"expanding the claim {claim}"):
            self._core.patch_namespaced_persistent_volume_claim(claim, self.namespace, body, _request_timeout=TIMEOUT_S)

    def delete_claim(self, claim: str, version: str) -> None:
        """Delete a claim, unless it has changed since ``version``: a volume may be bound to it by now."""
        options = client.V1DeleteOptions(preconditions=client.V1Preconditions(resource_version=version))
        with self.sentences(f"deleting the claim {claim}, which had no volume yet"):
            self.or_none(self._core.delete_namespaced_persistent_volume_claim, claim, self.namespace, body=options)

    def is_expanded(self, claim: str, size: int) -> bool:
        """Return whether a claim's volume has this many bytes, or waits for a restart of its pod for the rest."""
        with self.sentences(f"reading the claim {claim}"):
            found = self._core.read_namespaced_persistent_volume_claim(
                claim, self.namespace, _request_timeout=TIMEOUT_S
            )
        capacity = (found.status.capacity or {}).get("storage", "0")
        pending = {condition.type for condition in found.status.conditions or ()}
        return int(parse_quantity(capacity)) >= size or "FileSystemResizePending" in pending

    def orphan(self, workload: str) -> None:
        """Delete a StatefulSet and leave its pods."""
        options = client.V1DeleteOptions(propagation_policy="Orphan")
        with self.sentences(f"deleting the StatefulSet {workload} without its pods"):
            self.or_none(self._apps.delete_namespaced_stateful_set, workload, self.namespace, body=options)

    def workload(self, name: str, selector: str) -> Workload | None:
        """Return a StatefulSet and its pods, or None when it does not exist."""
        with self.sentences(f"reading the StatefulSet {name}"):
            found = self.or_none(self._apps.read_namespaced_stateful_set, name, self.namespace)
        if found is None:
            return None
        rolling = found.spec.update_strategy.rolling_update if found.spec.update_strategy else None
        made = re.compile(rf"{re.escape(name)}-(\d+)")
        pods = {
            int(number[1]): Pod((pod.metadata.labels or {}).get(REVISION, ""), is_ready(pod), why_not_ready(pod))
            for pod in self.pods(selector)
            if (number := made.fullmatch(pod.metadata.name)) and not pod.metadata.deletion_timestamp
        }
        return Workload(
            name=name,
            replicas=found.spec.replicas or 0,
            partition=(rolling.partition if rolling else None) or 0,
            revision=found.status.update_revision or "",
            observed=(found.status.observed_generation or 0) >= (found.metadata.generation or 0),
            pods=pods,
        )

    def set_partition(self, workload: str, partition: int) -> None:
        """Set the number from which on pods follow the StatefulSet's template."""
        body = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": partition}}}}
        with self.sentences(f"setting the partition of {workload}"):
            self._apps.patch_namespaced_stateful_set(workload, self.namespace, body, _request_timeout=TIMEOUT_S)

    @staticmethod
    def or_none(ask: Any, *arguments: Any, **others: Any) -> Any:
        """Return the result of a client's call; None where the object does not exist."""
        try:
            return ask(*arguments, **others, _request_timeout=TIMEOUT_S)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    @contextmanager
    def sentences(self, doing: str) -> Iterator[None]:
        """Raise API errors within the block as a :class:`UserError`."""
        try:
            yield
        except client.ApiException as error:
            if error.status in (401, 403):
                raise UserError(
                    f"The cluster at {self.server} does not allow {doing} ({error.status} {error.reason}); log in to "
                    f"it again, or ask who runs it for the right in the namespace {self.namespace}.",
                    exit_code=1,
                ) from error
            raise UserError(
                f"The cluster at {self.server} answered {error.status} to {doing}: "
                f"{_words(error.body or error.reason)}",
                exit_code=1,
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UserError(
                f"The cluster at {self.server} cannot be reached ({_words(error)}); check the network or the VPN, or "
                "name another context with plinth:kubernetes.context.",
                exit_code=1,
            ) from error


def _api_client(kubeconfig: str | None, context: str | None) -> client.ApiClient:
    """Return the client of a kubeconfig, with a proxy only where the API server's address is reached through one."""
    configuration = client.Configuration()
    config.load_kube_config(kubeconfig, context, client_configuration=configuration)
    proxy = proxy_for(configuration.host)
    if proxy is None and configuration.proxy:
        # Without a proxy in the configuration port-forwards would use the environment's.
        configuration.no_proxy = "*"
    else:
        configuration.proxy = proxy
    if not configuration.verify_ssl:
        # The kubeconfig's insecure-skip-tls-verify is deliberate; urllib3 would warn at every request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return client.ApiClient(configuration=configuration)


def is_ready(pod: Any) -> bool:
    """Return whether a pod is ready."""
    return any(c.type == "Ready" and c.status == "True" for c in (pod.status.conditions or ()))


def why_not_ready(pod: Any) -> str:
    """Return why a pod is not ready, from its status; empty when it is ready."""
    if is_ready(pod):
        return ""
    for about in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        waiting, ended = (about.state.waiting, about.state.terminated) if about.state else (None, None)
        if waiting and waiting.reason:
            return _words(f"{about.name}: {waiting.reason} {waiting.message or ''}")
        if ended and ended.exit_code:
            return f"{about.name} ended with {ended.exit_code} ({ended.reason or 'no reason given'})"
    for condition in pod.status.conditions or ():
        if condition.status != "True" and condition.message:
            return _words(condition.message)
    return str(pod.status.phase)


def _storage_of(claim: Any) -> int:
    return int(parse_quantity((claim.spec.resources.requests or {}).get("storage", "0")))


def _words(said: object) -> str:
    return " ".join(str(said).split())[:300]
