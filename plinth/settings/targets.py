"""The targets, and their settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from plinth.settings.base import Model, ProjectPath


class TargetName(StrEnum):
    """The platform that an environment runs on."""

    local = "local"
    docker = "docker"
    kubernetes = "kubernetes"


# Those that ask everybody for a password, or a token.
Publishable = Literal["qdrant", "postgres", "redis", "neo4j", "grafana", "gateway"]


class Docker(Model):
    """Settings of the docker target."""

    registry_mirror: str | None = Field(
        None, description="A registry, or a path in one, that holds the images under their own paths."
    )
    images: dict[str, str] = Field(default_factory=dict, description="Image references by key of config/images.yaml.")
    publish: tuple[Publishable, ...] = Field(
        (), description="The services whose ports listen on bind_address; those of all others listen on loopback."
    )
    host: str | None = Field(None, description="The engine's address; the docker client's own default when absent.")
    nofile: int = Field(
        65536, ge=1024, description="Open files of a container; the engine cannot give more than it has."
    )
    nproc: int = Field(
        4096,
        ge=512,
        description="Processes and threads of a container's account; what that account number runs elsewhere on the "
        "engine's machine counts too.",
    )


class Managed(Model):
    """Externally managed stores: those named here are used and not deployed.

    Their passwords are set in plinth:qdrant, plinth:postgres and plinth:redis.
    """

    qdrant_url: str | None = Field(
        None, pattern=r"^https?://[^/@:]+:\d{1,5}$", description="REST of a Qdrant, such as one of Qdrant Cloud."
    )
    qdrant_grpc_url: str | None = Field(None, pattern=r"^https?://[^/@:]+:\d{1,5}$", description="Its gRPC.")
    postgres_url: str | None = Field(
        None, pattern=r"^postgres(ql)?://[^/@:]+@[^/@:]+:\d{1,5}$", description="`postgresql://superuser@host:5432`."
    )
    redis_url: str | None = Field(
        None, pattern=r"^rediss?://[^/@:]+:\d{1,5}$", description="`rediss://host:6379` for TLS, else `redis://`."
    )

    @model_validator(mode="after")
    def _whole(self) -> Managed:
        if (self.qdrant_url is None) != (self.qdrant_grpc_url is None):
            raise ValueError("qdrant_url and qdrant_grpc_url go together: give both, or neither")
        return self


class Kubernetes(Model):
    """Settings of the kubernetes target."""

    kubeconfig: ProjectPath | None = Field(None, description="A kubeconfig file; KUBECONFIG's, else ~/.kube/config's.")
    context: str | None = Field(None, description="kubeconfig context; the current one when absent.")
    namespace: str = Field(
        "plinth", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="Namespace of every object."
    )
    storage_class: str | None = Field(None, description="The cluster's default when absent.")
    registry_mirror: str | None = Field(
        None, description="A registry, or a path in one, that holds the images under their own paths."
    )
    images: dict[str, str] = Field(default_factory=dict, description="Image references by key of config/images.yaml.")
    forward_offset: int = Field(
        10000,
        ge=0,
        le=50000,
        description="Ports of this machine that lead into the cluster are this much above the services' own.",
    )
    qdrant_url: str | None = Field(
        None,
        pattern=r"^https?://[^/@:]+:\d{1,5}$",
        description="Where the deployed Qdrant's REST is published, such as an ingress; a port-forward when absent.",
    )
    managed: Managed = Managed()


# Node n of a service is published this many ports above node n - 1.
NODE_PORT_STEP = 10
