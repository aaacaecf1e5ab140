"""Build the backup configuration of a deployed environment from its settings and outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from plinth.backup.config import (
    Config,
    GrafanaStore,
    Keep,
    Neo4jStore,
    PostgresStore,
    QdrantStore,
    RedisStore,
    Repository,
    Schedule,
    Stores,
)
from plinth.errors import UserError
from plinth.paths import Home
from plinth.services.backup import ACCOUNT, NAME, not_taken, repository_words, schedule
from plinth.settings import Settings, TargetName
from plinth.status_files.backup_runs import FILE
from plinth.system.accounts import group_of


def require_backups(env: str, outputs: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` where an environment has no backups."""
    if "backup" not in outputs:
        why = outputs.get("left_out", {}).get(NAME)
        raise UserError(
            f"'{env}' has no backups: {why}."
            if why
            else f"'{env}' has no backups; set plinth:backup.enabled to true and run `plinth up {env}`."
        )


@contextmanager
def config_of(
    settings: Settings, outputs: Mapping[str, Any], home: Home, revision: str | None = None
) -> Iterator[Config]:
    """Yield the configuration of an environment that has backups.

    The files of its secrets are removed after the block.
    """
    with _secrets() as secrets:
        about = outputs["backup"]
        keys = {
            "AWS_ACCESS_KEY_ID": "access_key_id",
            "AWS_SECRET_ACCESS_KEY": "secret_access_key",
            "RESTIC_REST_PASSWORD": "rest_password",
        }
        words: Any = repository_words(settings.backup)
        yield Config(
            name=settings.backup.name,
            directory=home.backups / "work",
            state=home.backup_state / FILE,
            repository=Repository(
                location=about["repository"],
                password_file=secrets.file(about["password"]),
                environment=words["repository_environment"],
                environment_files={name: secrets.file(about[key]) for name, key in keys.items() if key in about},
                ca_file=secrets.file(about["ca_cert"]) if "ca_cert" in about else None,
                options=words["repository_options"],
                limit_upload_kib=settings.backup.upload_kib,
            ),
            **dict(_stores(settings, outputs, home, secrets)),
            not_taken=not_taken(settings),
            append_only=settings.backup.append_only,
            keep=Keep(**settings.backup.keep.model_dump()),
            schedule=Schedule.model_validate(schedule(settings.backup)),
            revision=revision,
        )


@contextmanager
def stores_of(settings: Settings, outputs: Mapping[str, Any], home: Home) -> Iterator[Stores]:
    """Yield the stores of an environment as a target of restores.

    It needs no backups of its own. The files of its secrets are removed after the block.
    """
    with _secrets() as secrets:
        yield _stores(settings, outputs, home, secrets)


@contextmanager
def qdrant_of(settings: Settings, outputs: Mapping[str, Any], home: Home) -> Iterator[QdrantStore]:
    """Yield the connection settings of every node of an environment's Qdrant."""
    with _secrets() as secrets:
        yield _qdrant(outputs["qdrant"], settings, home, secrets)


@contextmanager
def written(model: Stores) -> Iterator[Path]:
    """Write a configuration to a file that `python -m plinth.backup` reads, and remove it after the block."""
    with _secrets() as files:
        yield files.file(model.model_dump_json(exclude_none=True))


def _stores(settings: Settings, outputs: Mapping[str, Any], home: Home, secrets: _Secrets) -> Stores:
    return Stores(
        qdrant=_qdrant(outputs["qdrant"], settings, home, secrets),
        postgres=_postgres(outputs, settings, secrets),
        redis=_redis(outputs, secrets),
        neo4j=_neo4j(outputs, secrets),
        grafana=_grafana(outputs, settings, home),
        data=home.data if settings.target is TargetName.local else None,
    )


@contextmanager
def _secrets() -> Iterator[_Secrets]:
    """Yield a writer of secret files; files of root are readable by the account that runs the backups."""
    reader = group_of(ACCOUNT) if os.geteuid() == 0 else None
    with TemporaryDirectory(prefix="plinth-") as directory:
        if reader is not None:
            os.chown(directory, 0, reader)
            Path(directory).chmod(0o710)
        yield _Secrets(Path(directory), reader)


class _Secrets:
    def __init__(self, directory: Path, reader: int | None) -> None:
        self._directory, self._reader = directory, reader
        self._count = 0

    def file(self, value: str) -> Path:
        self._count += 1
        path = self._directory / str(self._count)
        path.touch(mode=0o600)
        path.write_text(value)
        if self._reader is not None:
            os.chown(path, 0, self._reader)
            path.chmod(0o640)
        return path


def _qdrant(about: Mapping[str, Any], settings: Settings, home: Home, secrets: _Secrets) -> QdrantStore:
    key, ca = about.get("api_key"), about.get("ca_cert")
    local = settings.target is TargetName.local
    return QdrantStore(
        urls=tuple(about.get("nodes", {"qdrant": about["url"]}).values()),
        api_key_file=secrets.file(key) if key else None,
        ca_file=secrets.file(ca) if ca else None,
        snapshots=home.data / "qdrant" / "snapshots" if local else None,
    )


def _postgres(outputs: Mapping[str, Any], settings: Settings, secrets: _Secrets) -> PostgresStore | None:
    about = outputs.get("postgres")
    return about and PostgresStore(
        host=about["host"],
        port=int(about["port"]),
        user=about["user"],
        password_file=secrets.file(about["password"]),
        extensions=settings.backup.extensions,
    )


def _redis(outputs: Mapping[str, Any], secrets: _Secrets) -> RedisStore | None:
    about = outputs.get("redis")
    return about and RedisStore(
        host=about["host"], port=int(about["port"]), password_file=secrets.file(about["password"])
    )


def _neo4j(outputs: Mapping[str, Any], secrets: _Secrets) -> Neo4jStore | None:
    about = outputs.get("neo4j")
    if about is None:
        return None
    where = urlsplit(about["bolt_url"])
    return Neo4jStore(
        host=where.hostname or "127.0.0.1",
        port=where.port or 7687,
        user=about["user"],
        password_file=secrets.file(about["password"]),
    )


def _grafana(outputs: Mapping[str, Any], settings: Settings, home: Home) -> GrafanaStore | None:
    if "grafana" not in outputs or settings.target is not TargetName.local:
        return None
    return GrafanaStore(database=home.data / "grafana" / "data" / "grafana.db")
