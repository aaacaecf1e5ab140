"""How often an `up` reads the project's collection files: once, on every target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plinth.qdrant import spec
from plinth.settings.loader import parse
from tests.conftest import ROOT
from tests.program.recorder import Recorder

TARGETS: dict[str, dict[str, Any]] = {
    "local": {"qdrant": {"engine": "embedded"}},
    "docker": {},
    "kubernetes": {"kubernetes": {"images": {"plinth": "registry.example/plinth:1"}}},
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("target", TARGETS)
def test_a_collection_file_is_read_once(
    run: Callable[..., Recorder], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    read_document = spec._document

    def counted(path: Path) -> dict[str, Any]:
        reads[path.name] += 1
        return read_document(path)

    monkeypatch.setattr(spec, "_document", counted)
    run(parse({"target": target, **TARGETS[target]}, source="x"))
    assert reads == dict.fromkeys((path.name for path in (ROOT / "config" / "collections").glob("*.y*ml")), 1)
