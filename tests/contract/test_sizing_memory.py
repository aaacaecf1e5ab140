"""What `plinth size` says against the memory of a real load, on each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plinth.load.memory_footprint import Footprint, measure, sized_spec
from plinth.qdrant.ephemeral import Kind
from tests.conftest import ENGINES

POINTS, DIMENSIONS, PAYLOAD = 20000, 256, 400
INT8 = {"quantization_config": {"scalar": {"type": "int8", "always_ram": True}}}
# Computed over measured: docs/sizing.md has the figures of larger loads, which lie within the same band.
BAND = (0.7, 1.5)


def load(kind: Kind, directory: Path, **sections: Any) -> Footprint:
    return measure(kind, directory, sized_spec(DIMENSIONS, POINTS, **sections), POINTS, PAYLOAD)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_computed_memory_is_that_of_a_real_load(engine: str, tmp_path: Path) -> None:
    kind: Kind = "server" if engine == "qdrant" else "embedded"
    plain = load(kind, tmp_path / "plain")
    quantized = load(kind, tmp_path / "int8", **INT8)
    for found in (plain, quantized):
        assert BAND[0] < found.ratio < BAND[1], found
        assert found.measured.total > found.empty.total + POINTS * DIMENSIONS * 4, found
    # What an allocator keeps differs by more than the copy of a byte a dimension; its file does not.
    copy = POINTS * (DIMENSIONS + 4)
    assert quantized.disk - plain.disk == pytest.approx(copy, rel=0.5)
