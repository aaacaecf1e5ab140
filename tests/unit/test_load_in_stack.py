"""Where the load of an environment comes from, and what carries it: plans, which touch nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plinth.cli import load as command
from plinth.cli import load_in_stack
from plinth.cli.load import RunOptions
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load.remote_run import job_of
from plinth.load.resource_needs import limits
from plinth.load.slo import load_slo
from plinth.paths import home
from plinth.programs.spec import Limits
from plinth.qdrant.spec import load_specs
from plinth.settings.loader import parse
from plinth.targets.docker.container_spec import Options
from plinth.targets.docker.load import SECRETS, container_of
from tests.conftest import ROOT

SLO = load_slo(ROOT / "load" / "slo.yaml")
EMBEDDINGS = next(spec for spec in load_specs(ROOT / "config" / "collections") if "embeddings" in spec.aliases)
BUILT = "registry.test/plinth:0.1.0"


def stack_of(settings: dict[str, Any], tmp_path: Path) -> Stack:
    return Stack("dev", ROOT, home(tmp_path, "dev"), parse(settings, source="x"))


class Engine:
    """Has the images that it is told of."""

    def __init__(self, *images: str) -> None:
        self.images = images

    def __call__(self, _host: str | None) -> Engine:
        return self

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def local_name(self, reference: str) -> str:
        return reference

    def has_image(self, reference: str) -> bool:
        return reference in self.images


MANAGED = {
    "images": {"plinth": BUILT},
    "managed": {"qdrant_url": "https://x.test:6333", "qdrant_grpc_url": "https://x.test:6334"},
}


@pytest.mark.parametrize(
    ("settings", "on_engine", "why"),
    [
        ({"target": "local"}, (), "on this machine"),
        ({"target": "docker"}, ("localhost/plinth:0.1.0",), None),
        ({"target": "docker"}, (), "`plinth images build dev` makes it"),
        # What a registry has is pulled by the run.
        ({"target": "docker", "docker": {"images": {"plinth": BUILT}}}, (), None),
        ({"target": "kubernetes"}, (), "no registry has Plinth's image localhost/plinth:0.1.0"),
        ({"target": "kubernetes", "kubernetes": {"images": {"plinth": BUILT}}}, (), None),
        (
            {
                "target": "kubernetes",
                "kubernetes": {"images": {"plinth": BUILT}, **MANAGED},
                "qdrant": {"api_key": "k"},
            },
            (),
            "someone else runs https://x.test:6333",
        ),
    ],
)
def test_the_load_comes_from_beside_the_stores_wherever_plinths_image_is(
    settings: dict[str, Any],
    on_engine: tuple[str, ...],
    why: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plinth.targets.docker.engine_api.Daemon", Engine(*on_engine))
    stack = stack_of(settings, tmp_path)
    found = load_in_stack.why_from_here(stack)
    assert found is None if why is None else why in (found or "")


def test_an_address_and_a_directory_are_this_machines(tmp_path: Path) -> None:
    assert RunOptions(url="http://x").is_of_here
    assert RunOptions(handed_out=tmp_path).is_of_here
    assert not RunOptions(processes=8, keep=True).is_of_here


@pytest.mark.parametrize(
    ("given", "processes", "is_directory"), [(None, None, False), ("8", 8, False), (".", None, True)]
)
def test_workers_are_a_number_or_a_directory(
    given: str | None, processes: int | None, is_directory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command._workers(given) == (processes, tmp_path.resolve() if is_directory else None)


def test_workers_that_are_neither_or_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers nowhere is neither a number nor a directory"):
        command._workers("nowhere")
    stack = stack_of({"target": "local"}, tmp_path)
    with pytest.raises(UserError, match="--workers 65: input should be less than or equal to 64"):
        command._slo(stack, RunOptions(processes=65))
    assert command._slo(stack, RunOptions(processes=64)).profile("smoke").processes == 64
    assert command._slo(stack, RunOptions()).profile("smoke").processes == 1


def container(wanted: Limits, cpus: int) -> dict[str, Any]:
    job = job_of(
        "smoke", SLO, EMBEDDINGS, url="http://q:6333", grpc="q:6334", protocol="rest", api_key_file=f"{SECRETS}/api-key"
    )
    return container_of("dev", "plinth-dev", BUILT, job, wanted, Options(nofile=4096, nproc=512), cpus)


@pytest.mark.requirement("S1-14")
def test_the_container_is_as_hardened_as_the_stacks_and_goes_by_itself() -> None:
    body = container(limits(SLO.profile("smoke")), 16)
    host = body["HostConfig"]
    assert host["AutoRemove"] is True
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert host["NetworkMode"] == "plinth-dev"
    assert "PortBindings" not in host
    assert body["User"] == "65534:65534"
    assert host["Memory"] == host["MemorySwap"] == 727 << 20
    assert {bound["Name"]: bound["Hard"] for bound in host["Ulimits"]} == {"nofile": 4096, "nproc": 512}
    assert host["LogConfig"]["Config"]["max-size"]
    # No bind, no socket, no volume of another: one without a name, for the key.
    assert host["Mounts"] == [{"Type": "volume", "Target": SECRETS}]
    assert json.dumps(body).count(SECRETS) == 2
    # `up` and `down` take what carries the stack's label for the stack's.
    assert "plinth.stack" not in body["Labels"]


@pytest.mark.parametrize(("workers", "cpus", "given"), [(1, 16, 2), (8, 16, 9), (8, 4, 4)])
def test_the_container_is_promised_no_core_that_the_engine_has_not(workers: int, cpus: int, given: int) -> None:
    profile = SLO.profile("smoke").model_copy(update={"processes": workers})
    assert container(limits(profile), cpus)["HostConfig"]["NanoCpus"] == given * 10**9
