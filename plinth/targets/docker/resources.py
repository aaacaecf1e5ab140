"""Declared containers as pulumi_docker's resources.

Where two can be there at once, ``delete_before_replace`` is off in so many words: the provider asks for it wherever a
name is given, and then Pulumi deletes all that mounts the volume or runs the image beforehand, every node together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_docker as docker

from plinth.targets.docker.container_spec import Declared, decimal, go_duration
from plinth.targets.docker.naming import CONFIG

# A stop takes the service's own grace and a little more for the engine.
GRACE_MARGIN_S = 5
# Of the names of resources that bring config files into a volume.
CARRIER_SUFFIX = "-config-files"


def network(
    name: str, resource: str, labels: Mapping[str, str], provider: docker.Provider, *, internal: bool
) -> docker.Network:
    """Declare a bridge network; an internal one has no route out of the host, and publishes nothing."""
    return docker.Network(
        resource,
        name=name,
        driver="bridge",
        internal=internal,
        labels=[docker.NetworkLabelArgs(label=key, value=value) for key, value in labels.items()],
        opts=pulumi.ResourceOptions(provider=provider, delete_before_replace=True),
    )


def volume(
    name: pulumi.Input[str], resource: str, labels: Mapping[str, str], provider: docker.Provider, *, keep: bool
) -> docker.Volume:
    """Declare a named volume; one that is kept stays on the engine when its resource is deleted."""
    return docker.Volume(
        resource,
        name=name,
        labels=[docker.VolumeLabelArgs(label=key, value=value) for key, value in labels.items()],
        opts=pulumi.ResourceOptions(provider=provider, retain_on_delete=keep, delete_before_replace=False),
    )


def image(reference: str, resource: str, provider: docker.Provider) -> docker.RemoteImage:
    """Declare an image, pulled unless it exists; it stays, for others may use it."""
    return docker.RemoteImage(
        resource,
        name=reference,
        keep_locally=True,
        opts=pulumi.ResourceOptions(provider=provider, delete_before_replace=False),
    )


def loader(
    declared: Declared,
    resource: str,
    image: pulumi.Input[str],
    volume: pulumi.Input[str],
    files: pulumi.Input[Mapping[str, str]],
    provider: docker.Provider,
) -> docker.Container:
    """Declare a container that never runs and copies the config files into their volume.

    The engine copies nothing into a container whose root is read-only, so the one that runs cannot take them itself.
    The files name no owner: with one, an engine before 28 looks for the image's whole USER in its machine's list of
    accounts and refuses the copy. They are readable to all, and only this service's containers mount the volume.
    """

    def uploads(contents: Mapping[str, str]) -> list[docker.ContainerUploadArgs]:
        return [
            docker.ContainerUploadArgs(file=f"{CONFIG}/{name}", content=content, permissions="0444")
            for name, content in sorted(contents.items())
        ]

    return docker.Container(
        resource,
        name=f"{declared.name}-config",
        image=image,
        entrypoints=["true"],
        start=False,
        must_run=False,
        network_mode="none",
        uploads=pulumi.Output.from_input(files).apply(uploads),
        mounts=[docker.ContainerMountArgs(type="volume", source=volume, target=CONFIG)],
        # In the place of the image's own volumes: the engine would make one without a name for each.
        tmpfs=dict.fromkeys([*(mount.path for mount in declared.mounts), *declared.tmpfs], "size=64k"),
        labels=_labels({**declared.labels, "plinth.carries": "files"}),
        opts=pulumi.ResourceOptions(
            provider=provider,
            delete_before_replace=True,
            # The provider takes these for changes in place and then leaves them as they were.
            replace_on_changes=["labels", "mounts", "tmpfs"],
        ),
    )


def container(
    declared: Declared,
    resource: str,
    image: pulumi.Input[str],
    config: pulumi.Input[str] | None,
    provider: docker.Provider,
    needs: Sequence[pulumi.Resource],
) -> docker.Container:
    """Declare the container of one node; ``config`` is the volume of its config files."""
    mounts = [
        docker.ContainerMountArgs(type="volume", source=m.volume, target=m.path, read_only=m.read_only or None)
        for m in declared.mounts
    ]
    mounts += [
        docker.ContainerMountArgs(type="bind", source=source, target=path, read_only=True)
        for source, path in declared.seen.items()
    ]
    if config is not None:
        mounts.append(docker.ContainerMountArgs(type="volume", source=config, target=CONFIG, read_only=True))
    return docker.Container(
        resource,
        name=declared.name,
        hostname=declared.name,
        image=image,
        entrypoints=list(declared.entrypoint),
        command=list(declared.command),
        envs=list(declared.environment),
        user=declared.user,
        group_adds=list(declared.groups) or None,
        read_only=True,
        tmpfs=dict(declared.tmpfs),
        capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
        security_opts=["no-new-privileges:true"],
        ulimits=[
            docker.ContainerUlimitArgs(name=name, soft=bound, hard=bound)
            for name, bound in (("nofile", declared.nofile), ("nproc", declared.nproc))
        ],
        networks_advanced=[
            docker.ContainerNetworksAdvancedArgs(name=name, aliases=list(aliases))
            for name, aliases in declared.networks.items()
        ],
        ports=[
            docker.ContainerPortArgs(internal=port.inside, external=port.outside, ip=port.address, protocol="tcp")
            for port in declared.ports
        ],
        mounts=mounts,
        healthcheck=_health(declared),
        restart="unless-stopped",
        must_run=True,
        stop_signal=declared.stop_signal,
        stop_timeout=declared.stop_grace_s,
        # Without it the engine is told to kill at once.
        destroy_grace_seconds=declared.stop_grace_s + GRACE_MARGIN_S,
        log_driver=declared.logs.driver,
        log_opts=dict(declared.logs.options),
        cpus=decimal(declared.cpus) if declared.cpus else None,
        memory=declared.memory_mib or None,
        # The same as the memory: none of it is swapped.
        memory_swap=declared.memory_mib or None,
        shm_size=declared.shm_mib,
        cgroup_parent=declared.cgroup,
        labels=_labels(declared.labels),
        opts=pulumi.ResourceOptions(
            provider=provider,
            depends_on=list(needs),
            # Two containers can have neither one name nor one published port.
            delete_before_replace=True,
            # The provider takes these for changes in place and then leaves them as they were.
            replace_on_changes=["healthcheck", "labels", "mounts", "tmpfs"],
        ),
    )


def _health(declared: Declared) -> docker.ContainerHealthcheckArgs | None:
    if not declared.check:
        return None
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", *declared.check],
        interval=go_duration(10),
        timeout=go_duration(5),
        retries=3,
        start_period=go_duration(declared.start_period_s),
    )


def _labels(labels: Mapping[str, str]) -> list[docker.ContainerLabelArgs]:
    return [docker.ContainerLabelArgs(label=key, value=value) for key, value in labels.items()]
