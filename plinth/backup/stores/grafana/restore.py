"""Grafana's database of a set, handed out as a file."""

from __future__ import annotations

import shutil

from plinth.backup.manifest import GrafanaPart
from plinth.backup.restore_source import Source
from plinth.system import beneath


def restore(source: Source, part: GrafanaPart) -> list[str]:
    """Write the database where the backups' configuration names a directory; the last step is a person's."""
    file, _ = source.fetch(part.path)
    directory, name = source.work.config.directory, f"grafana-{source.snapshot.short}.db"
    beneath.remove(directory, name)
    with file.open("rb") as fetched, beneath.create(directory, name) as copy:
        shutil.copyfileobj(fetched, copy)
    return [
        f"grafana: its database is in {directory / name}; docs/backup.md has the command that puts it into Grafana."
    ]
