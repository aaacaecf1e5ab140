"""Restore Grafana's database of a set as a file."""

from __future__ import annotations

import shutil

from plinth.backup.manifest import GrafanaPart
from plinth.backup.restore_source import Source
from plinth.system import beneath


def restore(source: Source, part: GrafanaPart) -> list[str]:
    """Write the database to the directory of the backup configuration; a person does the last step."""
    file, _ = source.fetch(part.path)
    directory, name = source.work.config.directory, f"grafana-{source.snapshot.short}.db"
    beneath.remove(directory, name)
    with file.open("rb") as fetched, beneath.create(directory, name) as copy:
        shutil.copyfileobj(fetched, copy)
    return [
        f"grafana: its database is in {directory / name}; docs/backup.md has the command that puts it into Grafana."
    ]
