"""The load gate's data: real texts, embedded, with the exact answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plinth.errors import UserError
from plinth.load.dataset import dataset, nearest
from plinth.load.slo import Data
from plinth.load.wordnet import DIRECTORY, glosses, parse

needs_wordnet = pytest.mark.skipif(
    not (DIRECTORY / "data.noun").exists(), reason="no WordNet: apt-get install wordnet-base"
)


def test_a_synset_is_read_with_its_lexicographer_file() -> None:
    line = "02084071 05 n 02 dog 0 domestic_dog 0 001 @ 02083346 n 0000 | a member of the genus; barks  \n"
    gloss = parse(line)
    assert gloss is not None
    assert (gloss.word, gloss.text, gloss.part, gloss.tenant) == (
        "dog",
        "a member of the genus; barks",
        "noun",
        "noun.animal",
    )
    assert parse("  1 This software and database is being provided to you\n") is None


@needs_wordnet
def test_the_sample_is_the_same_every_time_and_its_tenants_are_skewed() -> None:
    sample = glosses(2000)
    assert sample == glosses(2000)
    tenants = [gloss.tenant for gloss in sample]
    sizes = sorted((tenants.count(tenant) for tenant in set(tenants)), reverse=True)
    assert len(sizes) > 30
    assert sizes[0] > 10 * sizes[len(sizes) // 2 + 8]


def test_without_wordnet_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get install wordnet-base"):
        glosses(10, directory=tmp_path)


def test_the_model_puts_like_meanings_together_as_its_authors_publish() -> None:
    from plinth.gateway.providers.minilm_model import MiniLM

    # The sentences and scores of the model's page.
    vectors = MiniLM().embed(
        ["That is a happy person", "That is a very happy person", "That is a happy dog", "Today is a sunny day"]
    )
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1:].T == pytest.approx([0.943, 0.695, 0.257], abs=0.005)


def test_generated_data_is_the_same_from_the_cache_and_its_truth_is_exact(tmp_path: Path) -> None:
    wanted = Data(source="generated", points=3000, queries=50, dimensions=32, tenants=10)
    said: list[str] = []
    made, again = (dataset(wanted, tmp_path, said.append) for _ in range(2))
    assert len(said) == 1
    assert np.array_equal(made.vectors, again.vectors)
    assert made.tenants == again.tenants
    assert made.described == again.described
    assert "3000 x 32" in made.described
    for query, tenant, truth in zip(made.queries, made.query_tenants, made.truth, strict=True):
        scores = made.vectors @ query
        of_tenant = [row for row in range(3000) if made.tenants[row] == tenant]
        best = sorted(of_tenant, key=lambda row: -scores[row])[:10]
        assert {round(float(scores[row]), 5) for row in truth} == {round(float(scores[row]), 5) for row in best}
    other = dataset(wanted.model_copy(update={"dimensions": 16}), tmp_path, said.append)
    assert other.vectors.shape == (3000, 16)


def test_the_exact_answer_stays_within_its_tenant() -> None:
    vectors = np.eye(20, dtype=np.float32)
    among = np.arange(20) % 2 == 0
    found = nearest(vectors, vectors[4], among)
    assert 4 in found
    assert len(found) == 10
    assert all(row % 2 == 0 for row in found)
