"""Live stores for the session, and backups of them for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from plinth.backup import run as backup_run
from tests.faults.world import Backups, Live, start

NEEDED = ("restic", "redis-server", "redis-cli", "redis-check-rdb", "pg_dump", "pg_restore", "psql")


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    # Not pytest's own directory, which it closes to others: Postgres runs as another user, who must be able to enter.
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not on this machine: run `make bootstrap`")
    with tempfile.TemporaryDirectory(prefix="plinth-backups-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture(scope="session")
def live(place: Path) -> Iterator[Live]:
    """Qdrant as the embedded engine, Postgres and Redis, filled."""
    with ExitStack() as stack:
        (place / "live").mkdir()
        yield start(stack, place / "live", "embedded")


@pytest.fixture
def backups(place: Path, live: Live, request: pytest.FixtureRequest) -> Callable[..., Backups]:
    """A maker of backups with a repository of their own."""
    made: list[Backups] = []

    def make(**settings: Any) -> Backups:
        name = f"{request.node.name.partition('[')[0][5:30]}-{len(list(place.iterdir()))}"
        made.append(Backups(place / name, live, settings))
        return made[-1]

    return make


@pytest.fixture(scope="session")
def stocked(place: Path, live: Live) -> Backups:
    """A repository with one good set; tests that break it take a copy."""
    made = Backups(place / "stocked", live)
    assert backup_run.run(made.config, made.say).manifest.complete
    return made


@pytest.fixture
def stock(place: Path, stocked: Backups, request: pytest.FixtureRequest) -> Backups:
    """A copy of the repository with one good set."""
    return stocked.copy(place / f"{request.node.name.partition('[')[0][5:30]}-{len(list(place.iterdir()))}")
