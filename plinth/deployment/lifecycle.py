"""What lies under an environment, by its target: what must be so before a deploy, what a `down` leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plinth.deployment import docker_lifecycle
from plinth.deployment.environment_plan import EnvironmentPlan
from plinth.deployment.plugins import refuse_missing
from plinth.deployment.preflight import ports
from plinth.deployment.pulumi_environment import pulumi_home
from plinth.deployment.reach import reach
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.cluster import refuse_removal
from plinth.qdrant.cluster_observer import observe
from plinth.settings import TargetName
from plinth.system.console import console
from plinth.system.ports import refuse_taken
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.local.supervisor import Supervisor
from plinth.targets.local.target import refuse_closed


def make_sure(stack: Stack, outputs: dict[str, Any], nodes: int, removed: Sequence[str]) -> None:
    """Refuse a deploy that the machine, the engine or the running cluster stands in the way of.

    ``nodes`` is how many of Qdrant there may be now, ``removed`` the services that a person named to be stopped.
    """
    settings = stack.settings
    refuse_missing(settings.target, pulumi_home(stack.root))
    if removed and settings.target is not TargetName.kubernetes:
        raise UserError(
            f"--remove is for kubernetes; on {settings.target} `plinth up {stack.env}` stops what the settings turn "
            "off and keeps its data, so leave it out."
        )
    if settings.target is TargetName.local:
        refuse_closed(stack.home.place)
        supervisor = Supervisor(stack.home.run)
        ours = {stray.pid for stray in supervisor.strays()} | {supervisor.pid() or 0}
        refuse_taken(ports(settings), settings.bind_address, ours)
    if settings.target is TargetName.docker:
        docker_lifecycle.make_sure(stack, _say)
    if settings.target is TargetName.kubernetes:
        from plinth.deployment import kubernetes_lifecycle

        kubernetes_lifecycle.make_sure(stack)
        reach(stack)
    _refuse_leaving_nodes(stack, outputs, nodes)
    if settings.target is TargetName.kubernetes:
        kubernetes_lifecycle.release(stack, removed)
        kubernetes_lifecycle.grow_volumes(stack, _say)


def show_growth(stack: Stack) -> list[str]:
    """Say how volumes would grow and what would stop; the URNs of StatefulSets that Pulumi's preview leaves alone."""
    refuse_missing(stack.settings.target, pulumi_home(stack.root))
    if stack.settings.target is not TargetName.kubernetes:
        return []
    from plinth.deployment import kubernetes_lifecycle

    found = kubernetes_lifecycle.growths(stack)
    for step in (step for growth in found for step in growth.steps):
        _say(f"would {step}")
    gone = kubernetes_lifecycle.leaving(stack)
    for service, about in gone.items():
        _say(
            f"{about.setting} turns {service} off: `plinth up {stack.env} --remove {service}` stops it, "
            "keeps its claims"
        )
    return [*kubernetes_lifecycle.made_again(stack, found), *(about.urn for about in gone.values())]


def _say(words: str) -> None:
    console.print(f"  {words}")


def must_answer(stack: Stack) -> None:
    """Refuse where the engine does not run: nothing of the environment could be found or stopped."""
    refuse_missing(stack.settings.target, pulumi_home(stack.root))
    if stack.settings.target is TargetName.docker:
        with Daemon(stack.settings.docker.host) as daemon:
            daemon.version()
    if stack.settings.target is TargetName.kubernetes:
        from plinth.deployment import kubernetes_lifecycle

        kubernetes_lifecycle.must_answer(stack)
        reach(stack)


def release(stack: Stack) -> None:
    """Take the protection off what a `down` is to remove, and remove what would hold its volumes and networks."""
    if stack.settings.target is TargetName.docker:
        docker_lifecycle.release(stack, _say)
    if stack.settings.target is TargetName.kubernetes:
        stack.unprotect_all()


def clear(stack: Stack) -> None:
    """Remove what no resource knows of any more, and wait for what still ends."""
    if stack.settings.target is TargetName.local:
        Supervisor(stack.home.run).clear()
    if stack.settings.target is TargetName.kubernetes:
        from plinth.deployment import kubernetes_lifecycle

        kubernetes_lifecycle.wait_until_ended(stack, _say)


def last_words(stack: Stack, service: str) -> str:
    """What a service that does not get ready printed last, and how to read more; empty where its log is elsewhere."""
    return docker_lifecycle.last_words(stack, service) if stack.settings.target is TargetName.docker else ""


def carriers(stack: Stack) -> list[str]:
    """The URNs of the containers that only bring config files into their volume."""
    return docker_lifecycle.carriers(stack) if stack.settings.target is TargetName.docker else []


def kept(stack: Stack) -> str:
    """Where the data is that a `down` left, as a sentence; empty where there is none."""
    data = stack.home.data
    if stack.settings.target is TargetName.docker:
        with Daemon(stack.settings.docker.host) as daemon:
            volumes = daemon.volumes(stack.env)
        if volumes:
            return (
                f" Its data is kept in {len(volumes)} volumes and its secrets in {data}; to start afresh delete both: "
                f"docker volume rm {' '.join(volumes)}."
            )
    if stack.settings.target is TargetName.kubernetes:
        from plinth.deployment import kubernetes_lifecycle

        sentence = kubernetes_lifecycle.kept(stack)
        if sentence:
            return sentence
    return f" Its data is kept in {data}; delete that directory to start afresh." if data.exists() else ""


def _refuse_leaving_nodes(stack: Stack, outputs: dict[str, Any], was: int) -> None:
    leaving = _leaving_hosts(stack.plan, was)
    if not leaving or "qdrant" not in outputs:
        return
    where = outputs["qdrant"]
    try:
        with Qdrant(where["url"], where["api_key"], ca_cert=where.get("ca_cert")) as client:
            seen = observe(client)
    except QdrantError as error:
        raise UserError(
            f"plinth:qdrant.nodes goes from {was} to {stack.settings.qdrant.nodes}, and whether the nodes that leave "
            f"hold data cannot be asked: {error}",
            exit_code=1,
        ) from error
    refused = [sentence for host in leaving if (sentence := refuse_removal(seen, host))]
    if refused:
        raise UserError(
            f"plinth:qdrant.nodes goes from {was} to {stack.settings.qdrant.nodes}. {' '.join(refused)}", exit_code=1
        )


def _leaving_hosts(plan: EnvironmentPlan, was: int) -> list[str]:
    """The host names among their peers of the Qdrant nodes that a deploy would take away; ``was`` is their number."""
    settings = plan.settings
    if settings.target is TargetName.local or settings.managed.qdrant_url or settings.qdrant.nodes >= was:
        return []
    before = settings.model_copy(update={"qdrant": settings.qdrant.model_copy(update={"nodes": was})})
    target = plan.with_settings(before).target
    peers = [target.peer("qdrant", node, "p2p") for node in range(settings.qdrant.nodes, was)]
    return [address.rpartition(":")[0] for address in peers]
