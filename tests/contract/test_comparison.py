"""`make compare` on a small set: the embedded engine always, the other stores where their environment is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plinth.compare import run
from plinth.errors import UserError
from tests.conftest import ROOT

ENVIRONMENT = ROOT / ".compare"
OTHERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not (ENVIRONMENT / "bin" / "python").exists(), reason="no .compare: `make compare` makes it"
        ),
    )
    for name in ("Chroma", "pgvector", "Milvus Lite")
]


def compare(tmp_path: Path, name: str, environment: Path) -> dict[str, Any]:
    out = tmp_path / "compare.json"
    size = ["--points", "1500", "--dimensions", "32", "--queries", "100", "--seconds", "0.5", "--rounds", "2"]
    status = run.main([*size, "--only", name, "--environment", str(environment), "--out", str(out)])
    # So few points judge no claim, and that is no pass.
    assert status == 3
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.timeout(180)
@pytest.mark.requirement("S1-12")
@pytest.mark.parametrize("name", ["embedded", *OTHERS])
def test_a_store_is_measured_at_the_recall_that_all_are_set_to(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(tmp_path, name, ENVIRONMENT)
    assert found["left_out"] == {}
    (store,) = found["results"]
    for searched in store["searched"].values():
        # The exact answers are computed apart: a store that returned its neighbours wrongly would miss this.
        assert searched["recall_at_10"] >= 0.9, store
        assert searched["alone"]["samples"] > 10
        assert searched["together"]["clients"] == 4
    assert set(store["searched"]) == {"as a whole", "within a tenant"}
    assert store["build_s"] >= store["insert_s"] > 0
    # 1,500 vectors of 32 floats: it holds those at least, or it was not the server that was weighed.
    assert store["anonymous"] + store["files"] > 1500 * 32 * 4
    said = capsys.readouterr().out
    assert f"| {store['name']} |" in said
    assert "Verdict: void." in said
    for judged in found["claims"]:
        assert judged["verdict"] == "void"
        assert "1,500 x 32 are less than" in judged["reasons"][0]
    assert len(found["claims"]) == {"embedded": 2, "Chroma": 1}.get(name, 0)


def test_a_store_that_is_not_installed_is_left_out_with_the_reason(tmp_path: Path) -> None:
    found = compare(tmp_path, "Chroma", tmp_path / "none")
    assert found["results"] == []
    assert "`make compare` installs it" in found["left_out"]["Chroma"]


def test_a_store_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only Chromo names no store; there are: embedded engine, int8, Qdrant"):
        compare(tmp_path, "Chromo", ENVIRONMENT)
