"""Backups: their repository, their schedule, and their retention."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from plinth.settings.base import ROOT, Model, Port, ProjectPath, Secret
from plinth.settings.repository_address import anchored
from plinth.system.cron import Cron


class Retention(Model):
    """How many snapshots of each age restic keeps (S1-06)."""

    daily: int = Field(7, ge=1, description="Daily backup sets to keep.")
    weekly: int = Field(4, ge=0, description="Weekly backup sets to keep.")
    monthly: int = Field(6, ge=0, description="Monthly backup sets to keep.")


class S3(Model):
    """The credentials of a repository in S3: `repository: s3:https://host/bucket/prefix`."""

    access_key_id: Secret = Field(description="Access key id.")
    secret_access_key: Secret = Field(description="Secret access key.")
    region: str | None = Field(None, description="Region of the bucket; the server's default when absent.")
    path_style: bool = Field(False, description="The bucket in the path and not in the host's name, as MinIO wants it.")


class Rest(Model):
    """The login of a repository on restic's rest-server: `repository: rest:https://host:8000/name`."""

    user: str = Field(pattern=r"^[^:\s]+$", description="User name on the rest-server.")
    password: Secret = Field(description="Password of that user.")


def _repository(address: str, info: ValidationInfo) -> str:
    if not address.strip() or not address.isprintable():
        raise ValueError("name a directory, or a repository such as s3:https://host/bucket/prefix")
    root = (info.context or {}).get(ROOT)
    try:
        return address if root is None else anchored(address, root)
    except RuntimeError as error:
        raise ValueError(f"{str(error).rstrip('.').lower()}; write the whole path") from None


class Backup(Model):
    """Backups: their repository, their schedule, and their retention."""

    enabled: bool = Field(True, description="Back the stores up by schedule.")
    name: str = Field(
        "plinth",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="What its sets are called; environments that share a repository need a name each.",
    )
    repository: Annotated[str, AfterValidator(_repository)] | None = Field(
        None, description="A restic repository; a directory is relative to the project. Beside the data when absent."
    )
    password: Secret | None = Field(None, description="Generated and kept when absent.")
    s3: S3 | None = None
    rest: Rest | None = None
    append_only: bool = Field(
        False,
        description="The repository lets this environment delete nothing: backups remove no old sets, and `plinth "
        "backup prune` does so with a login of its own, from another machine.",
    )
    ca_cert: ProjectPath | None = Field(
        None,
        description="Who signed the certificate of the repository's server, where none of the machine's authorities "
        "did: a PEM file, relative to the project.",
    )
    extensions: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], ...] = Field(
        (),
        description="Extensions of Postgres that a restore and a drill may make as the superuser, beside those that "
        "any owner may make and those that Plinth knows to reach no file, no program and no other server.",
    )
    schedule: Cron = Field("0 3 * * *", description="Cron, in UTC.")
    check_schedule: Cron = Field("0 4 * * 6", description="When the repository is checked: cron, in UTC.")
    drill_schedule: Cron = Field("0 5 * * 0", description="When a restore is drilled: cron, in UTC.")
    check_parts: int = Field(4, ge=1, description="So many checks in a row read every byte of the repository once.")
    upload_kib: int | None = Field(None, ge=1, description="KiB a second that may be uploaded; unlimited when absent.")
    keep: Retention = Retention()
    disk_gib: int = Field(20, ge=1, description="For staging a set, and for the repository where it is local.")
    port: Port = Field(9189, description="Where the schedule says that it is alive.")
