"""The docker target's parts: references, declared containers, the questions to an engine."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.deployment.preflight import ports, refusals
from plinth.errors import UserError
from plinth.load.slo import Data
from plinth.paths import Home, last_deployed, remember_deployed
from plinth.settings.loader import load_settings
from plinth.targets.docker import plinth_image
from plinth.targets.docker.container_spec import decimal, go_duration, initialising, outside
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.leftovers import Recorded
from plinth.targets.docker.preflight import Demand, make_sure
from plinth.targets.docker.target import digest
from plinth.targets.images import (
    Images,
    at_version,
    by_digest,
    mirrored,
    pins,
    repository,
    with_digests,
    without_digest,
)
from tests.conftest import ROOT, free_port
from tests.containers.scripted import Engine

A, B = (f"sha256:{letter * 64}" for letter in "ab")


@pytest.mark.parametrize(
    ("reference", "repository_", "exact"),
    [
        (f"docker.io/prom/x:v1@{A}", "docker.io/prom/x", f"docker.io/prom/x@{A}"),
        (f"r.test:5000/x@{A}", "r.test:5000/x", f"r.test:5000/x@{A}"),
        ("r.test:5000/x:1", "r.test:5000/x", "r.test:5000/x:1"),
        ("redis", "redis", "redis"),
    ],
)
def test_a_reference_has_a_repository_and_one_exact_name(reference: str, repository_: str, exact: str) -> None:
    assert repository(reference) == repository_
    assert by_digest(reference) == exact


def test_new_digests_change_their_own_lines_alone() -> None:
    text = f"# why\nimages:\n  redis: r.test/redis:7  # kept\n  x: r.test/x:1\n  y: r.test/y:2@{A}\n  xy: r.test/xy:1\n"
    changed = with_digests(text, {"x": B, "y": B})
    assert changed == text.replace("r.test/x:1", f"r.test/x:1@{B}").replace(f"y:2@{A}", f"y:2@{B}")
    assert with_digests(changed, {"x": B, "y": B}) == changed


@pytest.mark.parametrize(
    ("on_engine", "name"),
    [
        ({}, f"r.test/x@{A}"),
        ({f"r.test/x@{A}": {}, "r.test/x:1": {}}, f"r.test/x@{A}"),
        # Built here, or brought as a file.
        ({"r.test/x:1": {}}, "r.test/x:1"),
        # Pulled by a tag that has been moved since.
        ({"r.test/x:1": {"RepoDigests": [f"r.test/x@{B}"]}}, f"r.test/x@{A}"),
    ],
)
def test_an_engine_s_own_image_goes_by_its_tag_and_all_else_by_the_digest(
    on_engine: dict[str, dict[str, list[str]]], name: str
) -> None:
    engine = Engine({reference: {} for reference in on_engine})
    engine.details = on_engine
    with Daemon(engine.host) as daemon:
        assert daemon.local_name(f"r.test/x:1@{A}") == name
    engine.close()


@pytest.mark.requirement("S1-14")
def test_every_pin_names_a_registry_and_a_version() -> None:
    for key, reference in pins(ROOT).items():
        host, _, path = reference.partition("/")
        assert "." in host or (key, host) == ("plinth", "localhost"), key
        tag = without_digest(path).rpartition(":")[2]
        assert any(letter.isdigit() for letter in tag), key
        assert tag != "latest", key


@pytest.mark.parametrize(
    ("reference", "version", "wanted"),
    [
        ("docker.io/qdrant/qdrant:v1.18.3-unprivileged", "1.18.4", "docker.io/qdrant/qdrant:v1.18.4-unprivileged"),
        ("docker.io/qdrant/qdrant:v1.18.3-unprivileged", "v1.19.0", "docker.io/qdrant/qdrant:v1.19.0-unprivileged"),
        ("r.test:5000/redis:7.4.5-bookworm", "7.4.6", "r.test:5000/redis:7.4.6-bookworm"),
        ("docker.io/prom/prometheus:v3.5.0", None, "docker.io/prom/prometheus:v3.5.0"),
        # A digest is of one version.
        (f"r.test:5000/q:v1.18.3-x@{A}", "1.18.3", f"r.test:5000/q:v1.18.3-x@{A}"),
        (f"r.test:5000/q:v1.18.3-x@{A}", "1.18.4", "r.test:5000/q:v1.18.4-x"),
    ],
)
def test_a_version_changes_in_the_tag_alone(reference: str, version: str | None, wanted: str) -> None:
    assert at_version(reference, version) == wanted


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        ("docker.io/prom/prometheus:v3", "m.test/hub/prom/prometheus:v3"),
        ("quay.io/a/b:1", "m.test/hub/a/b:1"),
        ("localhost/x:1", "m.test/hub/x:1"),
        ("redis:7", "m.test/hub/redis:7"),
        ("library/redis:7", "m.test/hub/library/redis:7"),
    ],
)
def test_a_mirror_takes_the_place_of_the_registry(reference: str, wanted: str) -> None:
    assert mirrored(reference, "m.test/hub") == wanted


def test_a_moving_tag_is_refused() -> None:
    settings = load_settings(ROOT, "dev")
    moving = settings.model_copy(update={"docker": settings.docker.model_copy(update={"images": {"redis": "redis"}})})
    assert any("a tag that moves" in sentence for sentence in refusals(moving, {}))


@given(st.integers(0, 10**6))
def test_a_duration_reads_back_as_the_seconds_it_was(seconds: int) -> None:
    text, total, number = go_duration(seconds), 0, ""
    for letter in text:
        if letter.isdigit():
            number += letter
        else:
            total, number = total + int(number) * {"h": 3600, "m": 60, "s": 1}[letter], ""
    assert total == seconds


@pytest.mark.parametrize(("cpus", "spelled"), [(1, "1.0"), (0.25, "0.25"), (1.5, "1.5"), (12, "12.0"), (10, "10.")])
def test_cores_are_spelled_as_the_provider_reads_them_back(cpus: float, spelled: str) -> None:
    # Of pulumi-docker 5: another spelling replaces the container at every deploy.
    assert decimal(cpus) == spelled


@given(st.integers(1, 128 * 10**9))
def test_cores_lose_nothing_by_their_spelling(nano: int) -> None:
    assert round(float(decimal(nano / 10**9)) * 10**9) == nano


def test_nodes_never_share_a_published_port() -> None:
    published = ports(load_settings(ROOT, "cluster"))
    assert published["qdrant.http_port + 20"] == outside(6433, 2) == 6453
    assert len(set(published.values())) == len(published)


def start(volume: Path, script: str) -> int:
    entrypoint, command = initialising(str(volume), ("sh", "-c", f"{script}", "x", str(volume)), ("true",))
    return subprocess.run([*entrypoint, *command[1:]], check=False).returncode


def test_a_volume_is_filled_once_and_an_interrupted_filling_is_begun_anew(tmp_path: Path) -> None:
    volume = tmp_path / "data"
    assert start(volume, 'mkdir "$1"; touch "$1/half"; exit 1') != 0
    assert not volume.exists()
    assert start(volume, 'mkdir "$1"; echo first > "$1/whole"') == 0
    assert [path.name for path in volume.iterdir()] == ["whole"]
    assert start(volume, 'mkdir "$1"; echo second > "$1/whole"') == 0
    assert (volume / "whole").read_text() == "first\n"


def test_the_name_of_some_files_changes_with_them_and_with_the_stack() -> None:
    assert digest({"a": "1"}, "x") == digest({"a": "1"}, "x")
    assert (
        len({digest({"a": "1"}, "x"), digest({"a": "2"}, "x"), digest({"b": "1"}, "x"), digest({"a": "1"}, "y")}) == 4
    )


def test_what_was_deployed_is_kept_with_the_data(tmp_path: Path) -> None:
    place = Home(tmp_path, tmp_path / "t")
    assert last_deployed(place) is None
    remember_deployed(place, {"qdrant_version": "1.17.0"})
    assert last_deployed(place) == {"qdrant_version": "1.17.0"}
    place.deployed.write_text("not JSON")
    assert last_deployed(place) is None


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


def sure(daemon: Daemon, images: dict[str, str], say: Callable[[str], object] = str) -> None:
    make_sure(daemon, Demand("t", images=images), Recorded(), lambda text: str(say(text)), lambda _: False)


def test_only_images_that_are_missing_are_pulled(engine: Engine) -> None:
    engine.images = {"a/b:1": {}}
    engine.answer_to_post = [{"status": "Pulling"}, {"status": "Done"}]
    said: list[str] = []
    with Daemon(engine.host) as daemon:
        sure(daemon, {"x": "a/b:1", "y": "c/d:2"}, say=said.append)
    assert engine.posts == ["/images/create?fromImage=c%2Fd%3A2"]
    assert said == ["pulling c/d:2"]


def test_a_pull_that_fails_midway_is_a_sentence(engine: Engine) -> None:
    engine.answer_to_post = [{"status": "Pulling"}, {"error": "dial tcp: lookup r.test: no such host"}]
    with (
        Daemon(engine.host) as daemon,
        pytest.raises(UserError, match=r"could not be pulled \(dial tcp: lookup r\.test"),
    ):
        sure(daemon, {"y": "c/d:2"})


def test_an_engine_that_is_not_there_is_a_sentence() -> None:
    with Daemon(f"tcp://127.0.0.1:{free_port()}") as daemon, pytest.raises(UserError, match="does not answer"):
        daemon.version()


def test_an_address_that_cannot_be_asked_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"plinth:docker\.host names the Docker engine ssh://x, which Plinth cannot"):
        Daemon("ssh://x")


def test_a_file_that_is_not_there_is_a_sentence(engine: Engine, tmp_path: Path) -> None:
    with (
        Daemon(engine.host) as daemon,
        pytest.raises(UserError, match="is no file; write one with `plinth images save`"),
    ):
        daemon.load(tmp_path / "none.tar")


def read(context: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(context)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def build(engine: Engine, wheels: Path | None = None) -> list[str]:
    said: list[str] = []
    with Daemon(engine.host) as daemon:
        plinth_image.build(daemon, Images(pins(ROOT)), plinth_image.Content(ROOT, "1.18.3", wheels=wheels), said.append)
    return said


def test_the_own_image_is_built_of_its_sources_on_the_pinned_base(engine: Engine) -> None:
    engine.answer_to_post = [{"stream": "Step 1/9 : ARG BASE"}, {"stream": "\n"}, {"stream": "Successfully tagged"}]
    said = build(engine)
    names = {key: by_digest(pins(ROOT)[key]) for key in ("python", "qdrant")}
    assert said == [*(f"pulling {name}" for name in names.values()), "Step 1/9 : ARG BASE"]
    asked, context = engine.posts[-1], read(engine.bodies[-1])
    query = parse_qs(asked.partition("?")[2])
    assert asked.startswith("/build?")
    assert query["t"] == [pins(ROOT)["plinth"]]
    assert json.loads(query["buildargs"][0])["BASE"] == names["python"]
    assert query["dockerfile"][0] in context
    assert context["package/plinth/exporter/__main__.py"] == (ROOT / "plinth/exporter/__main__.py").read_bytes()
    assert not [
        name for name in context if name.endswith((".pyc", ".secret")) or name.startswith((".", "tests", "wheels"))
    ]


def test_an_image_of_other_sources_is_stale_and_one_that_does_not_say_is_not(engine: Engine) -> None:
    build(engine)
    built_of = json.loads(parse_qs(engine.posts[-1].partition("?")[2])["labels"][0])
    for labels, stale in ((built_of, False), ({plinth_image.SOURCES: "other"}, True), (None, False)):
        engine.images = {"localhost/x:1": labels}
        with Daemon(engine.host) as daemon:
            assert plinth_image.is_stale(daemon, "localhost/x:1", ROOT) is stale


def test_the_own_image_holds_the_load_and_its_data_sets_and_is_stale_for_other_profiles(engine: Engine) -> None:
    here, other = (Data(source="wordnet", points=points, queries=20) for points in (300, 400))
    content = plinth_image.Content(ROOT, "1.18.3", [here], {"wordnet-300-20.npz": b"vectors"})
    with Daemon(engine.host) as daemon:
        plinth_image.build(daemon, Images(pins(ROOT)), content, lambda _: None)
        context = read(engine.bodies[-1])
        assert context["package/load/locustfile.py"] == (ROOT / "load" / "locustfile.py").read_bytes()
        assert context["package/load-data/wordnet-300-20.npz"] == b"vectors"
        built_of = json.loads(parse_qs(engine.posts[-1].partition("?")[2])["labels"][0])
        engine.images = {"localhost/x:1": built_of}
        stale = [plinth_image.is_stale(daemon, "localhost/x:1", ROOT, sets) for sets in ([here], [other], [])]
    assert stale == [False, True, True]


def test_wheels_go_along_and_a_directory_without_any_is_a_sentence(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no wheel; fill it with `pip download"):
        build(engine, tmp_path)
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    build(engine, tmp_path)
    assert read(engine.bodies[-1])["wheels/a-1-py3-none-any.whl"] == b"wheel"


@pytest.mark.parametrize(
    "after",
    [
        (),
        ("\n",),
        ("Removing intermediate container 0123456789ab\n",),
        (" ---> Running in 0123456789ab\n", "Removing intermediate container 0123456789ab\n", " ---> 0123456789ab\n"),
    ],
)
def test_a_build_that_fails_says_what_the_step_said(engine: Engine, after: tuple[str, ...]) -> None:
    engine.images = {by_digest(pins(ROOT)[key]): {} for key in ("python", "qdrant")}
    engine.answer_to_post = [
        {"stream": "Step 3/9 : RUN apt-get install restic\n"},
        {"stream": "Reading package lists...\n\x1b[91mE: Unable to locate package restic\n\x1b[0m"},
        *({"stream": text} for text in after),
        {"error": "returned a non-zero code: 100"},
    ]
    with pytest.raises(
        UserError, match=r"\(E: Unable to locate package restic; returned a non-zero code: 100\).*--wheels"
    ):
        build(engine)


def test_only_the_way_to_a_package_index_is_passed_on() -> None:
    machine = {"PIP_INDEX_URL": "https://i.test", "AWS_SECRET_ACCESS_KEY": "s", "https_proxy": "", "NO_PROXY": "x"}
    assert plinth_image.passed_on(machine) == {"PIP_INDEX_URL": "https://i.test", "NO_PROXY": "x"}


def test_what_no_registry_has_is_not_pulled(engine: Engine) -> None:
    with Daemon(engine.host) as daemon:
        sure(daemon, {"plinth": "localhost/plinth:1"})
    assert engine.posts == []
