"""Data of one engine is never opened by the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.errors import UserError
from plinth.services.qdrant import refuse_other_engine

FILES = {"embedded": "embedded/61/collection.json", "server": "collections/a/config.json"}


def storage_of(directory: Path, *engines: str) -> Path:
    """A volume with a collection of each engine."""
    for engine in engines:
        file = directory / FILES[engine]
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    return directory


@pytest.mark.parametrize(("holds", "serves"), [("embedded", "server"), ("server", "embedded")])
def test_the_other_engine_is_refused_with_the_way_across(tmp_path: Path, holds: str, serves: str) -> None:
    storage = storage_of(tmp_path, holds)
    with pytest.raises(UserError) as caught:
        refuse_other_engine(storage, embedded_serves=serves == "embedded")
    for hint in (f"plinth:qdrant.engine to {holds} ", "`plinth migrate qdrant`", str(storage)):
        assert hint in str(caught.value)


@pytest.mark.parametrize("serves", ["embedded", "server"])
@pytest.mark.parametrize("others", [(), ("embedded", "server")], ids=["empty", "both"])
def test_an_engine_begins_with_none_and_goes_on_with_its_own_beside_anothers(
    tmp_path: Path, serves: str, others: tuple[str, ...]
) -> None:
    refuse_other_engine(storage_of(tmp_path, *others), embedded_serves=serves == "embedded")


@pytest.mark.parametrize("engine", ["embedded", "server"])
def test_an_engine_goes_on_with_its_own_data(tmp_path: Path, engine: str) -> None:
    refuse_other_engine(storage_of(tmp_path, engine), embedded_serves=engine == "embedded")
