"""A stack stood up and asked where every variable names a proxy that lets nothing through."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import free_port
from tests.project import Environment, needs_pulumi
from tests.proxy import EXEMPTIONS, VARIABLES, Proxy, listening

pytestmark = [pytest.mark.engine, needs_pulumi]
OFF = {"enabled": False}


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with listening() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Environment]:
    settings = {
        "plinth:target": "local",
        "plinth:qdrant": {"engine": "embedded", "http_port": free_port(), "grpc_port": free_port()},
        "plinth:postgres": OFF,
        "plinth:redis": OFF,
        "plinth:backup": OFF,
        "plinth:monitoring": dict.fromkeys(("prometheus", "alertmanager", "grafana", "exporters"), OFF),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in EXEMPTIONS:
            patch.delenv(name, raising=False)
        made = Environment(
            tmp_path_factory.mktemp("proxy"), settings, **dict.fromkeys(VARIABLES, proxy.url), HOME=os.environ["HOME"]
        )
        yield made
        made.plinth("down", made.env, "--yes")


def test_a_stack_stands_up_and_no_key_reaches_the_proxy(project: Environment, proxy: Proxy) -> None:
    assert "Deployed in" in project.up()
    assert "as their files say" in project.plinth("collections", "diff", project.env)
    project.plinth("status", project.env)
    assert proxy.requests == []
    assert project.printed_secrets() == []
