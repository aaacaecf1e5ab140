"""A secret of one's own: refused in the clear, encrypted by `plinth secret`, applied by `up`, read by no other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import redis

from tests.conftest import free_port
from tests.project import Environment, needs_pulumi

pytestmark = [pytest.mark.engine, needs_pulumi]
OFF = {"enabled": False}
KEY = "a-key: of {one's} own"
PASSWORD = 'with "quotes", \\ and $x; #'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    settings = {
        "plinth:target": "local",
        "plinth:qdrant": {"engine": "embedded", "http_port": free_port(), "grpc_port": free_port()},
        "plinth:postgres": OFF,
        "plinth:redis": {"port": free_port()},
        "plinth:backup": OFF,
        "plinth:collections": {"only": []},
        "plinth:monitoring": dict.fromkeys(("prometheus", "alertmanager", "grafana", "exporters"), OFF),
    }
    made = Environment(tmp_path_factory.mktemp("secret"), settings)
    yield made
    made.plinth("down", made.env, "--yes")


def test_up_and_preview_refuse_a_key_in_the_clear_before_anything_is_touched(project: Environment) -> None:
    project.settings["plinth:qdrant"]["api_key"] = KEY
    project.write()
    for command in ("up", "preview"):
        said = project.plinth(command, project.env, expect=2)
        assert f"`plinth secret {project.env} qdrant.api_key`" in said
        assert KEY not in said
    assert KEY not in project.states()


def test_an_encrypted_one_is_applied_and_is_plain_in_no_file_of_pulumi(project: Environment) -> None:
    project.file.write_text(f"# Ours.\n{project.file.read_text()}")
    said = project.plinth("secret", project.env, "qdrant.api_key", said=f"{KEY}\n")
    assert f"plinth up {project.env}" in said
    assert KEY not in said + project.file.read_text()
    assert project.file.read_text().startswith("# Ours.\n")
    project.plinth("secret", project.env, "plinth:redis.password", said=PASSWORD)
    project.up()
    assert project.outputs()["qdrant"]["api_key"] == KEY
    where = project.outputs()["redis"]
    assert where["password"] == PASSWORD
    assert redis.Redis(host=where["host"], port=where["port"], password=PASSWORD).ping()
    with project.qdrant() as qdrant:
        assert qdrant.call("GET", "/collections") == {"collections": []}
    assert KEY not in project.states()
    assert "nothing to change" in project.up()


def test_after_a_down_it_still_opens(project: Environment) -> None:
    project.plinth("down", project.env, "--yes")
    project.up()
    assert project.outputs()["qdrant"]["api_key"] == KEY


def test_only_a_secret_is_taken_and_only_a_value(project: Environment) -> None:
    before = project.file.read_text()
    assert "plinth:qdrant.nodes is no secret setting" in project.plinth(
        "secret", project.env, "qdrant.nodes", said="3", expect=2
    )
    said = project.plinth("secret", project.env, "backup.s3.access_key_id", said="id")
    # The second half of a section is still to come, and may come the same way.
    said = project.plinth("status", project.env, expect=2)
    assert "backup.s3.secret_access_key is missing" in said
    project.plinth("secret", project.env, "backup.s3.secret_access_key", said="key")
    assert "is missing" not in project.plinth("preview", project.env, expect=2)
    project.file.write_text(before)
    assert "No value came" in project.plinth("secret", project.env, "redis.password", expect=2)
    assert project.file.read_text() == before


def test_a_clone_with_another_passphrase_is_told_so(project: Environment) -> None:
    kept = project.root / ".plinth"
    aside = kept.rename(project.root / "aside")
    try:
        for command in (("up", "--no-verify"), ("preview",)):
            said = project.plinth(command[0], project.env, *command[1:], expect=2)
            assert "encrypted with another passphrase; set PULUMI_CONFIG_PASSPHRASE" in said
        said = project.plinth(
            "preview", project.env, PULUMI_CONFIG_PASSPHRASE=(aside / "passphrase").read_text().strip()
        )
        assert "would change" in said
    finally:
        shutil.rmtree(kept)
        aside.rename(kept)
