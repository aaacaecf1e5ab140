"""The configuration of backups: one YAML file. Secrets are given as paths of files that only their reader can open."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from plinth.system.config_file import load
from plinth.system.cron import Cron
from plinth.system.secret_file import read_secret
from plinth.system.strict_model import StrictModel

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"


class Repository(StrictModel):
    """The restic repository, with its password and credentials."""

    location: str = Field(description="A directory, or what restic takes with -r: s3:https://host/bucket/prefix ...")
    password_file: Path
    environment: dict[str, str] = Field(default_factory=dict, description="For restic: AWS_DEFAULT_REGION ...")
    environment_files: dict[str, Path] = Field(
        default_factory=dict, description="For restic, each the content of a file: AWS_SECRET_ACCESS_KEY ..."
    )
    ca_file: Path | None = Field(None, description="Who signed the certificate of the repository's server.")
    options: tuple[str, ...] = Field((), description="restic's -o: s3.bucket-lookup=path ...")
    limit_upload_kib: int | None = Field(None, ge=1, description="KiB a second.")


class QdrantStore(StrictModel):
    """Every node of Qdrant by its REST address: a shard is backed up from the node that holds it."""

    urls: tuple[str, ...] = Field(min_length=1)
    api_key_file: Path | None = None
    ca_file: Path | None = None
    snapshots: Path | None = Field(
        None, description="The server's snapshots directory as seen from here; the embedded engine recovers from there."
    )


class PostgresStore(StrictModel):
    """A Postgres server, with the login of its superuser."""

    host: str
    port: int
    user: str = "postgres"
    password_file: Path
    extensions: tuple[str, ...] = Field(
        (), description="Extensions that a restore may make as the superuser, beside those that Plinth allows."
    )


class RedisStore(StrictModel):
    """A Redis server."""

    host: str
    port: int
    password_file: Path | None = None


class Neo4jStore(StrictModel):
    """A Neo4j server, reached over Bolt."""

    host: str
    port: int
    user: str = "neo4j"
    password_file: Path


class GrafanaStore(StrictModel):
    """The database of Grafana: an SQLite file."""

    database: Path


class LentGrafana(StrictModel):
    """The database of Grafana, fetched from its snapshot server (:mod:`plinth.grafana_snapshot.server`)."""

    url: str
    password_file: Path


class Keep(StrictModel):
    """How many sets of each age are retained."""

    daily: int = Field(7, ge=1)
    weekly: int = Field(4, ge=0)
    monthly: int = Field(6, ge=0)


class Schedule(StrictModel):
    """The cron expressions of each job, in UTC. ``check_parts`` checks in a row read every byte once."""

    backup: Cron = "0 3 * * *"
    check: Cron = "0 4 * * 6"
    drill: Cron = "0 5 * * 0"
    check_parts: int = Field(4, ge=1)


class Listen(StrictModel):
    """The address at which the scheduler serves its liveness."""

    host: str
    port: int


class Stores(StrictModel):
    """The stores of an environment: what a restore needs to know of its target."""

    qdrant: QdrantStore | None = None
    postgres: PostgresStore | None = None
    redis: RedisStore | None = None
    neo4j: Neo4jStore | None = None
    grafana: GrafanaStore | LentGrafana | None = None
    data: Path | None = Field(None, description="Where they keep their data, as seen from here.")


class Config(Stores):
    """The whole configuration file."""

    name: str = Field("plinth", pattern=NAME, description="What its sets are called in the repository.")
    directory: Path = Field(description="The backups' own: staging, cache, lock. On a disk, with room for a copy.")
    state: Path
    repository: Repository
    not_taken: dict[str, str] = Field(default_factory=dict, description="Stores that run and are not taken, and why.")
    append_only: bool = Field(False, description="The repository lets nothing be deleted from here.")
    keep: Keep = Keep()
    schedule: Schedule = Schedule()
    listen: Listen | None = None
    revision: str | None = Field(None, description="The update of the Pulumi stack that is deployed, where known.")


def load_config(path: Path) -> Config:
    """Read the file. Raises :class:`UserError` with the name of the key that is wrong."""
    return load(path, Config)


def secret(path: Path | None) -> str | None:
    """Return the content of a secret's file, or None without a file."""
    return None if path is None else read_secret(path)
