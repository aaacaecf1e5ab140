"""A run that is carried out elsewhere: what goes in, what comes home line by line, what it takes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from plinth.errors import UserError
from plinth.load import remote_run, resource_needs
from plinth.load.aggregation import Times
from plinth.load.dataset import Dataset, dataset
from plinth.load.dataset_files import of_image, packed, unpacked
from plinth.load.html_report import page
from plinth.load.image_datasets import file_name, sets_of
from plinth.load.percentiles import Latencies
from plinth.load.remote_run import Collected, Job, job_of, refusal_lines, report_lines
from plinth.load.report import Report
from plinth.load.slo import Data
from plinth.load.verdict import Verdict
from plinth.programs.spec import Limits
from plinth.qdrant.spec import load_specs
from tests.conftest import ROOT
from tests.unit.test_load_report import SLO, report

EMBEDDINGS = next(spec for spec in load_specs(ROOT / "config" / "collections") if "embeddings" in spec.aliases)


def with_creations() -> Report:
    found = Latencies(np.array([1.5, 20.25]), np.array([[3, 1]], dtype=np.int64), (0,))
    return replace(report(), created=Times(found, found, {}, None))


REPORTS: dict[str, Callable[[], Report]] = {
    "pass": report,
    "fail": lambda: report(latency=lambda _: 400.0),
    "climb": lambda: report("stress", lambda rate: 3.0 if rate < 400 else 400.0),
    "with collections that were made": with_creations,
}


@pytest.fixture(params=REPORTS.values(), ids=REPORTS)
def made(request: pytest.FixtureRequest) -> Report:
    return request.param()  # type: ignore[no-any-return]


def brought(lines: list[str], profile: str) -> Report | None:
    collected = Collected()
    for line in lines:
        collected.add(line)
    return collected.report(profile, SLO)


def drawn(of: Report) -> str:
    """The page without the names that its plots give to their parts, which are new each time."""
    return re.sub(r"\b[a-z]+[0-9a-f]{8,}\b", "", page(of))


def test_a_report_comes_home_whole(made: Report) -> None:
    lines = list(report_lines(made))
    assert max(map(len, lines)) < 4096
    back = brought(lines, made.profile)
    assert back is not None
    assert (back.to_json(), back.verdict, back.to_junit()) == (made.to_json(), made.verdict, made.to_junit())
    # Its plots are drawn of what each worker wrote down.
    for name, times in made.times.items():
        assert np.array_equal(back.times[name].response.counts, times.response.counts)
    if made.created:
        assert drawn(back) == drawn(made)


def test_the_lines_of_a_log_may_come_again_late_and_among_others(made: Report) -> None:
    lines = [*report_lines(made), *report_lines(made), "Load: 50 requests/s", "plinth-load of another kind", ""]
    random.Random(3).shuffle(lines)
    collected = Collected()
    others = [line for line in lines if not collected.add(f"{line}\r")]
    assert set(others) == {"Load: 50 requests/s", "plinth-load of another kind", ""}
    back = collected.report(made.profile, SLO)
    assert back is not None
    assert back.to_json() == made.to_json()


@pytest.mark.parametrize("lost", [slice(0, 1), slice(-1, None), slice(None)])
def test_a_report_that_did_not_come_whole_is_none(lost: slice) -> None:
    lines = list(report_lines(report("stress")))
    assert len(lines) > 2
    del lines[lost]
    assert brought(lines, "stress") is None


@pytest.mark.parametrize("exit_code", [2, 3])
def test_why_there_is_no_report_comes_home(exit_code: int) -> None:
    with pytest.raises(UserError, match="No verdict: é is gone") as refused:
        brought(list(refusal_lines(UserError("No verdict: é is gone", exit_code=exit_code))), "smoke")
    assert refused.value.exit_code == exit_code


def others() -> Iterator[list[str]]:
    yield ["plinth-load 1/1 aGVsbG8="]
    for document in ({"run": {"version": 2}}, {"run": {"steps": []}}, {}, {"refusal": {"words": 1}}):
        yield list(remote_run._lines(document))
    yield [line[:-8] for line in report_lines(report())]


@pytest.mark.parametrize("lines", list(others()))
def test_what_another_version_prints_is_a_sentence_and_no_verdict(lines: list[str]) -> None:
    with pytest.raises(UserError, match="images build") as refused:
        brought(lines, "smoke")
    assert refused.value.exit_code == 3


def test_a_verdict_is_made_of_what_came_home_and_a_comparison_still_counts() -> None:
    back = brought(list(report_lines(report())), "smoke")
    assert back is not None
    assert back.verdict.exit_code == 0
    assert replace(back, compared=Verdict("fail", ("slower",))).verdict.exit_code == 1


@pytest.mark.parametrize("profile", sorted(SLO.profiles))
def test_a_job_is_the_same_on_the_other_side_and_names_no_secret(profile: str) -> None:
    job = job_of(
        profile,
        SLO,
        EMBEDDINGS,
        url="http://plinth-dev-qdrant-0:6333",
        grpc="plinth-dev-qdrant-0:6334",
        protocol="grpc",
        api_key_file="/etc/plinth-secrets/api-key",
    )
    again = Job.model_validate_json(job.text())
    assert again == job
    assert again.slo.profile(profile) == SLO.profile(profile)
    assert again.slo.operations == SLO.operations
    assert again.shipped == EMBEDDINGS
    # A kernel takes no longer variable than 128 KiB.
    assert len(job.text()) < 1 << 15
    assert set(json.loads(job.text())) >= {"api_key_file"}
    assert "api_key" not in json.loads(job.text())


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    wanted = Data(source="generated", points=300, queries=20, dimensions=8, tenants=4)
    return dataset(wanted, tmp_path, lambda _: None)


def test_a_packed_data_set_is_the_same_and_so_are_its_bytes(small: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(packed(small))
    back = unpacked(path)
    assert (back.name, back.tenants, back.words, back.query_parts) == (
        small.name,
        small.tenants,
        small.words,
        small.query_parts,
    )
    assert np.array_equal(back.vectors, small.vectors)
    assert back.truth == small.truth
    assert packed(back) == path.read_bytes()


def test_the_image_gives_the_set_that_a_profile_asks_for_and_names_what_it_has(small: Dataset, tmp_path: Path) -> None:
    here, other = (Data(source="wordnet", points=points, queries=20) for points in (300, 400))
    with pytest.raises(UserError, match="it has none") as refused:
        of_image(here, tmp_path / "images")
    assert refused.value.exit_code == 3
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / file_name(here)).write_bytes(packed(small))
    assert of_image(here, directory).truth == small.truth
    with pytest.raises(UserError, match=r"no set of 400 WordNet glosses .*it has wordnet-300-20\.npz"):
        of_image(other, directory)


def test_the_image_holds_each_set_once_and_none_that_is_generated_in_it() -> None:
    assert [file_name(data) for data in sets_of(SLO)] == ["wordnet-8000-400.npz"]
    without_cache = dataset(Data(source="generated", points=200, queries=10, dimensions=4), None, lambda _: None)
    assert without_cache.vectors.shape == (200, 4)


@pytest.mark.parametrize(
    ("profile", "processes", "limits"),
    [
        ("smoke", 1, Limits(2, 727)),
        ("smoke", 4, Limits(5, 1303)),
        ("release", 1, Limits(2, 1290)),
        ("release", 8, Limits(9, 2634)),
    ],
)
def test_a_run_gets_a_core_for_each_worker_and_memory_for_its_data(
    profile: str, processes: int, limits: Limits
) -> None:
    asked = SLO.profile(profile).model_copy(update={"processes": processes})
    assert resource_needs.limits(asked) == limits
