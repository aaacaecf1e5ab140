"""Collection files: the shipped ones load as the requirements want them, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.errors import UserError
from plinth.qdrant.spec import CollectionSpec, load_specs
from tests.conftest import ROOT

SHIPPED = {alias: spec for spec in load_specs(ROOT / "config" / "collections") for alias in spec.aliases}
GOOD = "name: a_v1\naliases: [a]\nvectors: {size: 8, distance: Cosine}\n"


@pytest.mark.parametrize(
    ("name", "size", "tenant", "indexes"),
    [
        pytest.param("embeddings", 384, "org_id", {"org_id"}, marks=pytest.mark.requirement("S0-01")),
        pytest.param("digi_knowledge", 384, "tenant_id", {"tenant_id"}, marks=pytest.mark.requirement("S1-08")),
        *(
            pytest.param(*case, marks=pytest.mark.requirement("S2-01"))
            for case in [
                ("trades", 768, "user_id", {"user_id", "symbol", "direction", "closed_at", "pnl_positive"}),
                ("playbooks", 768, "user_id", {"user_id", "name", "is_public"}),
                ("journal_entries", 768, "user_id", {"user_id", "date"}),
                ("coach_history", 768, "user_id", {"user_id", "conversation_id", "created_at"}),
            ]
        ),
        *(
            pytest.param(name, 1536, None, {"source_id"}, marks=pytest.mark.requirement("S3-01"))
            for name in ("sources", "crawled_pages", "code_examples")
        ),
    ],
)
def test_the_shipped_collections_are_those_required(
    name: str, size: int, tenant: str | None, indexes: set[str]
) -> None:
    spec = SHIPPED[name]
    assert (spec.vectors.size, spec.vectors.distance, spec.tenant) == (size, "Cosine", tenant)
    assert indexes <= set(spec.payload_indexes)
    assert spec.quantization_config is not None
    assert spec.search.rescore
    assert spec.search.oversampling >= 2


def test_a_collection_without_a_global_graph_names_its_tenant() -> None:
    for spec in SHIPPED.values():
        assert (spec.hnsw_config.m == 0) == bool(spec.scopes)


@pytest.mark.requirement("S3-01")
def test_the_migrated_collections_vacuum_as_asked() -> None:
    optimizers = SHIPPED["crawled_pages"].optimizers_config
    assert (optimizers.deleted_threshold, optimizers.vacuum_min_vector_number) == (0.2, 1000)


@pytest.mark.requirement("S3-02")
@pytest.mark.parametrize(
    ("name", "points"), [("sources", 200), ("crawled_pages", 100), ("code_examples", 150), ("coach_history", 50)]
)
def test_each_collection_has_its_number_of_points_in_one_request(name: str, points: int) -> None:
    assert SHIPPED[name].batch_size == points


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "name: a\nvectors: {size: 8, distance: Cosin}\n"}, "vectors.distance"),
        ({"a": "name: a\nvectors: {size: 0, distance: Dot}\n"}, "vectors.size"),
        ({"a": GOOD + "hnws_config: {m: 16}\n"}, "unknown key hnws_config"),
        ({"a": "vectors: {size: 8, distance: Dot}\n"}, "name is missing"),
        ({"a": "- 1\n"}, "must be a mapping"),
        ({"a": "a: [\n"}, "is not YAML"),
        ({"a": GOOD + "hnsw_config: {m: 0}\n"}, "name the tenant or searched_by"),
        ({"a": GOOD + "tenant: t\n"}, "is_tenant: true"),
        ({"a": GOOD + "searched_by: [u]\n"}, "searched_by names 'u', so payload_indexes must hold it"),
        ({"a": GOOD, "b": GOOD.replace("a_v1", "b_v1")}, "alias 'a' is claimed by a_v1, b_v1"),
        ({"a": GOOD, "b": GOOD.replace("aliases: [a]\n", "")}, "two files"),
        ({"a": GOOD, "b": "name: a\nvectors: {size: 8, distance: Dot}\n"}, "is an alias of a_v1 and the name"),
        ({}, "no collection file"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_file(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_specs(tmp_path)
    assert words.lower() in str(refused.value).lower()


def test_an_environment_takes_some_and_changes_some() -> None:
    (spec,) = load_specs(
        ROOT / "config" / "collections", ["trades"], {"trades": {"hnsw_config": {"ef_construct": 200}}}
    )
    assert spec.name == "trades_v1"
    assert (spec.hnsw_config.m, spec.hnsw_config.ef_construct) == (0, 200)


def test_a_name_that_no_file_has_is_refused() -> None:
    with pytest.raises(UserError, match="'trade', which no file"):
        load_specs(ROOT / "config" / "collections", ["trade"])


def test_the_create_body_holds_qdrants_words_alone() -> None:
    body = SHIPPED["embeddings"].create_body()
    assert set(body) == {"vectors", "hnsw_config", "quantization_config"}
    assert CollectionSpec.model_validate(
        {"name": "x", **body, "payload_indexes": {"o": {"type": "keyword", "is_tenant": True}}, "tenant": "o"}
    )
