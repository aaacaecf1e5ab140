"""A run of the program under mocks, in a directory of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pulumi
import pytest

from plinth.settings import Settings
from tests.program.recorder import Recorder, declare


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    def declared(settings: Settings, *, preview: bool = False) -> Recorder:
        return declare(settings, tmp_path, preview=preview)

    yield declared
    pulumi.runtime.settings.reset_options()
