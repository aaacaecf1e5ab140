"""A run of the program under mocks, in a directory of its own, and the Docker engine that it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pulumi
import pytest

from plinth.settings import Settings
from tests.containers.scripted import Engine
from tests.program.docker_declared import PINS
from tests.program.recorder import Recorder, declare


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    def declared(settings: Settings, *, preview: bool = False) -> Recorder:
        return declare(settings, tmp_path, preview=preview)

    yield declared
    pulumi.runtime.settings.reset_options()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A Docker engine that has Plinth's own image."""
    made = Engine({PINS["plinth"]: {}})
    monkeypatch.setenv("DOCKER_HOST", made.host)
    yield made
    made.close()
