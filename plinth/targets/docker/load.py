"""The container of a run of the load gate, as the engine's API takes it; pure."""

from __future__ import annotations

from typing import Any

from plinth.load.remote_run import VARIABLE, Job
from plinth.programs.spec import Container, Limits
from plinth.targets.docker.container_spec import KEPT, Options, tmpfs_options
from plinth.targets.docker.naming import LOAD_LABEL

SECRETS = "/etc/plinth-secrets"
STOP_GRACE_S = 60


def container_of(
    stack: str, network: str, image: str, job: Job, limits: Limits, options: Options, cpus: int
) -> dict[str, Any]:
    """As hardened as the stack's containers, in the clients' network, without a published port; gone when it ends.

    ``cpus`` are the engine's, of which none is promised that it does not have.
    """
    user, memory = Container().user, limits.memory_mib << 20
    bounds = (("nofile", options.nofile), ("nproc", options.nproc))
    return {
        "Image": image,
        "Entrypoint": ["python3", "-m", "plinth.load"],
        "User": user,
        "Env": [f"{VARIABLE}={job.text()}"],
        "Labels": {LOAD_LABEL: stack},
        "StopSignal": "SIGTERM",
        "StopTimeout": STOP_GRACE_S,
        "HostConfig": {
            "AutoRemove": True,
            "NetworkMode": network,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Tmpfs": {"/tmp": tmpfs_options(user)},  # noqa: S108 - inside the container
            # Without a name: it goes with its container, and with it the key in it.
            "Mounts": [{"Type": "volume", "Target": SECRETS}],
            "Ulimits": [{"Name": name, "Soft": bound, "Hard": bound} for name, bound in bounds],
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": int(min(limits.cpus, cpus) * 10**9),
            "LogConfig": {"Type": KEPT.driver, "Config": dict(KEPT.options)},
        },
    }
