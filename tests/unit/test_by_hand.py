"""Plain `pulumi up` refuses what `plinth up` refuses or mends before a run, as a sentence and before any resource."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from plinth.deployment.plain_pulumi import program
from plinth.deployment.pulumi_environment import BACKEND_URL, local_backend
from plinth.paths import home, remember_deployed
from tests.conftest import ROOT
from tests.containers.scripted import Engine
from tests.program.docker_declared import PINS

NETWORK = {"Id": "left", "Name": "plinth-t", "Labels": {}}
Run = Callable[..., None]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine({PINS["plinth"]: {}})
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The program as Pulumi's language host runs it, with these settings beside the target's."""
    for name in ("config", "monitoring", "containers"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "stacks").mkdir()
    monkeypatch.setenv(BACKEND_URL, local_backend(home(tmp_path, "t")))

    def by_pulumi(**values: Any) -> None:
        config = {"plinth:target": "docker", "plinth:docker": {"host": engine.host}}
        config |= {f"plinth:{key}": value for key, value in values.items()}
        (tmp_path / "stacks" / "Pulumi.t.yaml").write_text(yaml.safe_dump({"config": config}))
        pulumi.runtime.set_all_config(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
        )
        program(tmp_path, "t")

    yield by_pulumi
    pulumi.runtime.set_all_config({})


def test_a_limit_that_the_engine_cannot_give(run: Run, engine: Engine) -> None:
    engine.capacity = {"NCPU": 2, "MemTotal": 1 << 40}
    with pytest.raises(pulumi.RunError, match="has 2 processor"):
        run(tier="medium")


def test_a_version_that_cannot_go_back(run: Run, tmp_path: Path) -> None:
    remember_deployed(home(tmp_path, "t"), {"qdrant_version": "1.99.0"})
    with pytest.raises(pulumi.RunError, match="cannot go back"):
        run()


def test_what_a_killed_run_left(run: Run, engine: Engine) -> None:
    engine.networks = [NETWORK]
    with pytest.raises(pulumi.RunError, match="left plinth-t on the engine unfinished: `plinth up t` removes"):
        run()
    assert engine.removed == []


def test_what_another_backend_has_a_record_of_is_not_judged(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.networks = [NETWORK]
    engine.capacity = {"NCPU": 1, "MemTotal": 1 << 40}
    monkeypatch.setenv(BACKEND_URL, "s3://states")
    # It comes to the next refusal.
    with pytest.raises(pulumi.RunError, match="has 1 processor"):
        run(tier="medium")
