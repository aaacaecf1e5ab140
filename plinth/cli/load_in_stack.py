"""The load gate run where an environment's stores are: in a container of their network, in a Job of their namespace."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load.locust_runner import Protocol
from plinth.load.remote_run import Collected, Job, job_of
from plinth.load.report import Report
from plinth.load.resource_needs import limits
from plinth.load.slo import Slo
from plinth.programs.spec import OWN_IMAGE
from plinth.qdrant.spec import CollectionSpec
from plinth.services.spec import Service
from plinth.settings import TargetName
from plinth.targets.images import is_built_here

Say = Callable[[str], None]
Carry = Callable[[Callable[[str, bool], None]], int]
# Of what a run that ended without a report printed.
LAST_LINES = 3
OUT_OF_MEMORY = 137


def why_from_here(stack: Stack) -> str | None:
    """Why the load of an environment comes from this machine; None where it comes from beside the stores."""
    settings = stack.settings
    if settings.target is TargetName.local:
        return "the stores are on this machine"
    if settings.managed.qdrant_url:
        return f"someone else runs {settings.managed.qdrant_url}"
    image = stack.plan.images.of(OWN_IMAGE)
    build = f"`plinth images build {stack.env}` makes it"
    if settings.target is TargetName.kubernetes:
        name = f"push it and name it in plinth:kubernetes.images.{OWN_IMAGE}"
        return f"no registry has Plinth's image {image}; {build}, {name}" if is_built_here(image) else None
    from plinth.targets.docker.engine_api import Daemon

    with Daemon(settings.docker.host) as daemon:
        is_there = daemon.has_image(daemon.local_name(image))
    return None if is_there or not is_built_here(image) else f"Plinth's image {image} is not on the engine; {build}"


def run_in_stack(
    stack: Stack,
    outputs: dict[str, Any],
    profile: str,
    slo: Slo,
    shipped: CollectionSpec,
    say: Say,
    *,
    protocol: Protocol,
    keep: bool,
) -> Report:
    """Measure and judge beside the stores; the report. Raises :class:`UserError` where there is none.

    What the run says is said as it comes. A Ctrl-C ends it, and nothing of it stays.
    """

    def run(where: Any, api_key_file: str | None, ca_file: str | None) -> Job:
        tls = stack.settings.qdrant.tls is not None
        return job_of(
            profile,
            slo,
            shipped,
            url=f"{'https' if tls else 'http'}://{where.address('qdrant', 'http')}",
            grpc=where.address("qdrant", "grpc"),
            protocol=protocol,
            keep=keep,
            api_key_file=api_key_file,
            ca_file=ca_file,
        )

    running = {service.name: service for service in stack.plan.services}
    if stack.settings.target is TargetName.kubernetes:
        carry = _in_a_job(stack, running, run, say)
    else:
        carry = _in_a_container(stack, outputs, running, run)
    return _followed(carry, profile, slo, say)


def _followed(carry: Carry, profile: str, slo: Slo, say: Say) -> Report:
    """Carry a run out, and take its report from its lines."""
    collected, last = Collected(), list[str]()

    def on_line(text: str, _is_error: bool) -> None:
        if not collected.add(text):
            say(text)
            last[:] = [*last, text][-LAST_LINES:]

    try:
        code = carry(on_line)
    except UserError as error:
        # Only a report is a verdict: what could not be started or followed has not failed.
        raise UserError(str(error), exit_code=3) from error
    report = collected.report(profile, slo)
    if report is not None:
        return report
    if code in (130, 143):
        raise UserError("Interrupted: the load was ended.", exit_code=code)
    why = "it was killed, as one is that takes more than its memory" if code == OUT_OF_MEMORY else f"exit {code}"
    raise UserError(
        f"No verdict: the load ended without a report ({why}). It printed last: {' / '.join(last) or 'nothing'}.",
        exit_code=3,
    )


def _in_a_container(
    stack: Stack, outputs: dict[str, Any], running: dict[str, Service], run: Callable[..., Job]
) -> Carry:
    from plinth.targets.docker.container_spec import Options
    from plinth.targets.docker.engine_api import Daemon
    from plinth.targets.docker.load import SECRETS, container_of
    from plinth.targets.docker.naming import Layout
    from plinth.targets.docker.one_run import run_once

    settings, names = stack.settings, Layout(stack.env, running)
    held = {"api-key": outputs["qdrant"].get("api_key"), "ca.crt": outputs["qdrant"].get("ca_cert")}
    files = {name: text for name, text in held.items() if text}
    job = run(names, *(f"{SECRETS}/{name}" if name in files else None for name in held))
    wanted = limits(job.slo.profile(job.profile))
    options = Options(nofile=settings.docker.nofile, nproc=settings.docker.nproc)

    def carry(on_line: Callable[[str, bool], None]) -> int:
        with Daemon(settings.docker.host) as daemon:
            image = daemon.local_name(stack.plan.images.of(OWN_IMAGE))
            if not daemon.has_image(image):
                daemon.pull(image)
            cpus = daemon.capacity().cpus
            body = container_of(stack.env, names.clients, image, job, wanted, options, cpus)
            name = f"plinth-{stack.env}-load-{secrets.token_hex(3)}"
            return run_once(daemon, name, body, SECRETS, files, on_line)

    return carry


def _in_a_job(stack: Stack, running: dict[str, Service], run: Callable[..., Job], say: Say) -> Carry:
    from plinth.kubernetes.jobs import Jobs
    from plinth.targets.kubernetes import load as manifests
    from plinth.targets.kubernetes.naming import Layout

    settings = stack.settings
    names = Layout(stack.env, settings.kubernetes.namespace, running, settings.managed)
    key = f"{manifests.SECRETS}/{manifests.API_KEY}" if settings.qdrant.auth else None
    ca = f"{manifests.SECRETS}/{manifests.CA}" if manifests.has_ca(settings) else None
    job = run(names, key, ca)
    image = stack.plan.images.of(OWN_IMAGE)
    manifest = manifests.job_of(settings, image, job, limits(job.slo.profile(job.profile)))
    return lambda on_line: Jobs(stack.cluster).run(manifest, on_line, say)
