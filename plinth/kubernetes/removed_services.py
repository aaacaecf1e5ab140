"""Guards against deleting a StatefulSet, which holds data, as a side effect of disabling its service.

Pure: :func:`refusal` takes the running services, the desired ones and those that the user named for removal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from plinth.settings import Settings


def setting(settings: Settings, service: str) -> str:
    """Return the settings key that disabled a service."""
    managed = settings.managed
    elsewhere = {"qdrant": managed.qdrant_url, "postgres": managed.postgres_url, "redis": managed.redis_url}
    if elsewhere.get(service):
        return f"plinth:kubernetes.managed.{service}_url"
    return f"plinth:{service}.enabled" if service in elsewhere else f"plinth:monitoring.{service}.enabled"


def refusal(env: str, leaving: Mapping[str, str], named: Collection[str]) -> str | None:
    """Return why an `up` must not continue, as one sentence; None where it may.

    ``leaving`` are the settings that disable services, by service; ``named`` those that may be removed.
    """
    unknown = sorted(set(named) - set(leaving))
    if unknown:
        return f"--remove names {unknown[0]}, which does not run with the settings turning it off; " + (
            f"it is for {', '.join(sorted(leaving))}." if leaving else "leave it out."
        )
    rest = sorted(set(leaving) - set(named))
    if not rest:
        return None
    keys = " and ".join(f"{leaving[service]} turns {service} off" for service in rest)
    return (
        f"{keys}, which runs and holds data; `plinth up {env}{options(sorted(leaving))}` stops it and keeps its volume "
        "claims, or turn it on again."
    )


def options(services: Sequence[str]) -> str:
    """Return the services as command-line options."""
    return "".join(f" --remove {service}" for service in services)
