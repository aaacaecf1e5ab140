"""`plinth tune` from the command line on the embedded engine, and the sample of a running collection."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from typer.testing import CliRunner, Result

from plinth.cli import app
from plinth.errors import UserError
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec, load_spec
from plinth.tune.sample import live
from tests.conftest import KEY, ROOT, Server

OWN: dict[str, Any] = {
    "name": "mine",
    "vectors": {"size": 32, "distance": "Cosine"},
    "hnsw_config": {"m": 0, "payload_m": 16},
    "quantization_config": {"scalar": {"type": "int8", "always_ram": True}},
    "payload_indexes": {"user_id": {"type": "keyword", "is_tenant": True}},
    "tenant": "user_id",
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(OWN))
    return path


def tune(file: Path, *more: str) -> Result:
    size = ("--points", "1500", "--queries", "120", "--engine", "embedded", "--sample", "generated")
    return CliRunner().invoke(app, ["tune", str(file), *size, "--json", *more])


def engines() -> set[int]:
    """The embedded engines that this process has started; other tests keep one of their own."""
    return {child.pid for child in psutil.Process().children() if "plinth.embedded" in " ".join(child.cmdline())}


def test_the_lines_it_prints_make_a_collection_that_meets_the_floor(file: Path) -> None:
    before = engines()
    said = tune(file, "--floor", "0.9", "--budget-s", "900")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert "embedded" in found["engine"]
    assert found["chosen"]["builds"] >= 2
    assert min(found["chosen"]["recall_at_10"].values()) >= 0.9
    # Again with other queries on another build.
    assert min(found["confirmed"]["recall_at_10"].values()) >= 0.9
    # Recall is told apart by the size of the tenant.
    assert {"tenants over 20 %"} < set(found["chosen"]["recall_at_10"])
    assert found["chosen"]["engine_p50_ms"] > 0
    file.write_text(yaml.safe_dump(OWN | yaml.safe_load(found["settings"])))
    pasted = load_spec(file)
    assert pasted.search.hnsw_ef == found["chosen"]["search"]["hnsw_ef"]
    assert pasted.hnsw_config.payload_m == found["chosen"]["build"]["payload_m"]
    # Whatever was started is gone, with its data.
    assert engines() <= before
    assert not list(file.parent.glob("plinth-tune-*"))


def test_a_floor_that_nothing_meets_is_said_plainly(file: Path) -> None:
    said = tune(file, "--floor", "1", "--budget-s", "900")
    assert said.exit_code == 1, said.output
    found = json.loads(said.stdout)
    assert found["verdict"].startswith("Nothing that was tried meets recall 1 for every size of tenant")
    assert (found["chosen"], found["settings"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "There is no collection 'nothing'; there are"),
        (["trades", "--sample", "live"], "name it after the collection"),
        (["trades", "--sample", "wordnet"], "trades_v1 has 768 dimensions and the WordNet sample 384"),
        (["trades", "--engine", "other"], "--engine is 'other'; it is one of auto"),
        (["trades", "--quantization", "int4"], "--quantization is 'int4'; it is one of none"),
    ],
)
def test_wrong_use_is_a_sentence(file: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(app, ["tune", *arguments], catch_exceptions=False)


def test_a_running_collection_lends_its_points_and_is_only_read(server: Server) -> None:
    spec = CollectionSpec.model_validate(OWN | {"name": "lending"})
    chance = np.random.default_rng(2)
    vectors = chance.normal(size=(600, 32))
    with Qdrant(server.url, KEY) as client:
        converge(client, spec)
        points = [
            {"id": row, "vector": vectors[row].tolist(), "payload": {"user_id": f"u{row % 3}"}} for row in range(600)
        ]
        client.call("PUT", "/collections/lending/points?wait=true", {"points": points})
        sample = live(client, spec, points=400, queries=40, on_progress=lambda _words: None)
        assert client.call("POST", "/collections/lending/points/count", {"exact": True})["count"] == 600
        with pytest.raises(UserError, match="lending has 600 points to sample and 1600 are needed"):
            live(client, spec, points=400, queries=400, on_progress=lambda _words: None)
        client.call("DELETE", "/collections/lending")
    assert (len(sample.vectors), len(sample.queries)) == (400, 40)
    assert set(sample.tenants) == set(sample.query_tenants) == {"u0", "u1", "u2"}
    # Cosine collections keep unit vectors; what is asked is not stored.
    assert np.allclose(np.linalg.norm(sample.vectors, axis=1), 1, atol=1e-4)
    assert (sample.queries @ sample.vectors.T).max() < 0.9999
