"""A command in a Job of the cluster: create it, stream its output, return its exit status, and delete it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import urllib3
from kubernetes import client

from plinth.errors import UserError
from plinth.kubernetes.client import TIMEOUT_S, Cluster, why_not_ready
from plinth.system.streamed_command import Interruption, OnLine, ended_by_signals, lines_of

BY_HAND = {"cronjob.kubernetes.io/instantiate": "manual"}
# The cluster deletes a Job whose client has died.
REMOVED_AFTER_S = 3600
START_DEADLINE_S = 600.0
END_DEADLINE_S = 120.0
# How long the API may be away while a Job works: it goes on without us.
PATIENCE_S = 300.0
INTERVAL_S = 0.5


def job_of(cronjob: Mapping[str, Any], name: str, command: Sequence[str]) -> dict[str, Any]:
    """Return a CronJob's Job, marked as manual, with another command in its only container; tried once."""
    template = cronjob["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    spec = template["spec"]
    pod = spec["template"]
    (container,) = pod["spec"]["containers"]
    changed = {**pod["spec"], "restartPolicy": "Never", "containers": [{**container, "command": list(command)}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name}-{secrets.token_hex(3)}",
            "labels": metadata.get("labels") or {},
            "annotations": {**(metadata.get("annotations") or {}), **BY_HAND},
        },
        "spec": {
            **spec,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": REMOVED_AFTER_S,
            "template": {**pod, "spec": changed},
        },
    }


class Jobs:
    """The Jobs of a cluster's namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._batch, self._core = client.BatchV1Api(cluster.api), client.CoreV1Api(cluster.api)

    def cronjob(self, name: str) -> dict[str, Any] | None:
        """Return a CronJob as the API has it, or None when it does not exist."""
        with self._cluster.sentences(f"reading the CronJob {name}"):
            found = self._cluster.or_none(self._batch.read_namespaced_cron_job, name, self._cluster.namespace)
        return None if found is None else dict(self._cluster.api.sanitize_for_serialization(found))

    def run(self, job: Mapping[str, Any], on_line: OnLine, on_progress: Callable[[str], None]) -> int:
        """Run a Job of one container to its end; return its exit status, or a signal's (130, 143) that ended it.

        The Job and its pod are always deleted.
        """
        name = str(job["metadata"]["name"])
        container = str(job["spec"]["template"]["spec"]["containers"][0]["name"])
        with self._cluster.sentences(f"making the Job {name}"):
            self._batch.create_namespaced_job(self._cluster.namespace, dict(job), _request_timeout=TIMEOUT_S)
        try:
            with ended_by_signals(lambda: self._remove(name, on_progress)) as interruption:
                code = self._follow(name, container, on_line, on_progress, interruption)
                if interruption.exit_code is None:
                    return code
                self._await_end(name)
                return interruption.exit_code
        finally:
            self._remove(name, on_progress)

    def _follow(
        self,
        name: str,
        container: str,
        on_line: OnLine,
        on_progress: Callable[[str], None],
        interruption: Interruption,
    ) -> int:
        """Print the pod's output until its container has ended; a broken connection is opened again."""
        printed, pod = 0, None
        while pod := self._await_start(name, container, on_progress, interruption, seen=pod is not None):
            ended = _state(pod, container, "terminated")
            with suppress(urllib3.exceptions.HTTPError):
                for number, line in enumerate(self._log(pod.metadata.name, container)):
                    if number >= printed:
                        on_line(line, False)
                        printed = number + 1
            if ended:
                # Only a log that is read after the container's end is known to be complete.
                return int(ended.exit_code)
            time.sleep(INTERVAL_S)
        if interruption.exit_code is None:
            raise UserError(
                f"The pod of the Job {name} is gone before it ended: somebody removed it, or its machine went away. "
                "Run the command again.",
                exit_code=1,
            )
        return 1

    def _await_start(
        self, name: str, container: str, on_progress: Callable[[str], None], interruption: Interruption, *, seen: bool
    ) -> Any:
        """Return the pod once its container runs or has ended; None where it is gone: a Job creates no second one."""
        deadline, message = time.monotonic() + START_DEADLINE_S, ""
        while True:
            pod = self._pod_patiently(name) if seen else self._pod(name)
            if pod is None and (seen or interruption.number is not None or not self._is_there(name)):
                return None
            if pod is not None:
                seen = True
                if _state(pod, container, "running") or _state(pod, container, "terminated"):
                    return pod
                if pod.status.phase == "Failed":
                    raise UserError(f"The pod of the Job {name} failed: {_reason(pod)}. Run it again.", exit_code=1)
            if message != (message := _reason(pod) if pod else "it has no pod yet"):
                on_progress(f"waiting for the Job {name}: {message}")
            if time.monotonic() > deadline:
                raise UserError(
                    f"The Job {name} did not start in {START_DEADLINE_S / 60:.0f} minutes ({message}); see "
                    f"`kubectl -n {self._cluster.namespace} get pods`, and run it again.",
                    exit_code=1,
                )
            time.sleep(INTERVAL_S)

    def _log(self, pod: str, container: str) -> Iterator[str]:
        """Yield the lines of a pod from the first on, until it has ended or the connection breaks."""
        try:
            answer = self._core.read_namespaced_pod_log(
                pod,
                self._cluster.namespace,
                container=container,
                follow=True,
                _preload_content=False,
                _request_timeout=(TIMEOUT_S, None),
            )
        except client.ApiException as error:
            if error.status not in (401, 403):
                return  # its machine does not answer now, or the pod is gone
            with self._cluster.sentences(f"reading the log of the pod {pod}"):
                raise
        with closing(answer):
            yield from lines_of(answer.stream())

    def _pod(self, name: str) -> Any:
        pods = self._cluster.pods(f"job-name={name}")
        return pods[0] if pods else None

    def _pod_patiently(self, name: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._pod(name)
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(INTERVAL_S)

    def _is_there(self, name: str) -> bool:
        with self._cluster.sentences(f"reading the Job {name}"):
            job = self._cluster.or_none(self._batch.read_namespaced_job, name, self._cluster.namespace)
        return job is not None

    def _await_end(self, name: str) -> None:
        """Wait until the pod of a deleted Job is gone: it cleans up, and holds the lock until then."""
        deadline = time.monotonic() + END_DEADLINE_S
        while time.monotonic() < deadline and self._pod(name) is not None:
            time.sleep(INTERVAL_S)

    def _remove(self, name: str, on_progress: Callable[[str], None]) -> None:
        """Delete a Job and its pod, which gets a SIGTERM where it runs."""
        try:
            with self._cluster.sentences(f"removing the Job {name}"):
                self._cluster.or_none(
                    self._batch.delete_namespaced_job,
                    name,
                    self._cluster.namespace,
                    body=client.V1DeleteOptions(propagation_policy="Background"),
                )
        except UserError as error:
            on_progress(f"{error} The Job stays; `kubectl -n {self._cluster.namespace} delete job {name}` removes it.")


def _state(pod: Any, container: str, kind: str) -> Any:
    """Return a container's state of that kind, or None; a service mesh adds other containers to the pod."""
    for status in pod.status.container_statuses or ():
        if status.name == container and status.state:
            return getattr(status.state, kind)
    return None


def _reason(pod: Any) -> str:
    return pod.status.message or pod.status.reason or why_not_ready(pod)
