"""Pulumi's plugins come by their digest, and in no other way."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from plinth.deployment import plugins
from plinth.deployment.automation import _workspace, forget, last_error
from plinth.deployment.pulumi_environment import pulumi_home
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.paths import Home
from plinth.settings import TargetName
from plinth.targets.downloads import MIRROR, PinnedTool, pinned, this_platform
from tests.conftest import ROOT
from tests.unit.test_downloads import Mirror, archive, gives, mirror

__all__ = ["mirror"]

NAMES = ["docker", "kubernetes"]
BINARY = b"#!/bin/sh\necho the plugin\n"


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def release_record(name: str, content: bytes, pins: PinnedTool, /, **changed: object) -> bytes:
    asset = {"name": pins.archive_name(version(f"pulumi-{name}")), "digest": f"sha256:{digest_of(content)}"}
    return json.dumps({"assets": [{"name": "another", "digest": None}, asset | changed]}).encode()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pins(name: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> PinnedTool:
    """The pins of config/images.yaml with both of the vendor's servers on loopback."""
    monkeypatch.delenv(MIRROR, raising=False)
    local = {"base": mirror.url, "published": f"{mirror.url}/record/{{version}}"}
    made = pinned(ROOT, f"{name}-plugin").model_copy(update=local)
    monkeypatch.setattr(plugins, "pinned", lambda *_: made)
    return made


def vendor(answers: Mapping[str, bytes]) -> Callable[..., None]:
    def answer(handler: object) -> None:
        path = getattr(handler, "path", "")
        content = answers["record" if "/record/" in path else "archive"]
        gives(content)(handler)  # type: ignore[arg-type]

    return answer


def installed(home: Path, name: str) -> Path:
    return home / "plugins" / f"resource-{name}-v{version(f'pulumi-{name}')}" / f"pulumi-resource-{name}"


def test_a_plugin_comes_from_the_vendor_whose_two_servers_agree(
    mirror: Mirror, tmp_path: Path, name: str, pins: PinnedTool
) -> None:
    content = archive(("README.md", b"x"), (f"pulumi-resource-{name}", BINARY))
    mirror.answer = vendor({"record": release_record(name, content, pins), "archive": content})
    message = plugins.install(ROOT, tmp_path, name, None, None)
    assert digest_of(content) in message
    assert mirror.url in message
    assert subprocess.run([installed(tmp_path, name)], capture_output=True, check=True).stdout == b"the plugin\n"
    plugins.refuse_missing(TargetName(name), tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        lambda name, _, pins: release_record(name, b"another", pins),
        lambda name, content, pins: release_record(name, content, pins, digest=None),
        lambda name, content, pins: release_record(name, content, pins, digest="sha256:short"),
        lambda name, content, pins: release_record(name, content, pins, digest=7),
        lambda name, content, pins: release_record(name, content, pins, name="of another machine"),
        lambda *_: b"{}",
        lambda *_: b"[]",
        lambda *_: b"no JSON",
    ],
    ids=["other digest", "no digest", "no SHA-256", "number", "other machine", "no assets", "list", "no JSON"],
)
def test_a_plugin_whose_two_sources_disagree_is_not_installed(
    mirror: Mirror, tmp_path: Path, name: str, pins: PinnedTool, record: Callable[..., bytes]
) -> None:
    content = archive((f"pulumi-resource-{name}", BINARY))
    mirror.answer = vendor({"record": record(name, content, pins), "archive": content})
    with pytest.raises(UserError):
        plugins.install(ROOT, tmp_path, name, None, None)
    # An empty directory of its name would pass for the plugin.
    assert not installed(tmp_path, name).parent.exists()
    with pytest.raises(UserError, match=f"plinth plugins install {name}"):
        plugins.refuse_missing(TargetName(name), tmp_path)


def test_a_pinned_digest_asks_nobody_for_another(
    mirror: Mirror, tmp_path: Path, name: str, pins: PinnedTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive((f"pulumi-resource-{name}", BINARY))
    pin = {this_platform(): {"version": version(f"pulumi-{name}"), "sha256": digest_of(content)}}
    exact = PinnedTool.model_validate(pins.model_dump(by_alias=True) | {"platforms": pin, "published": None})
    monkeypatch.setattr(plugins, "pinned", lambda *_: exact)
    mirror.answer = gives(content)
    plugins.install(ROOT, tmp_path, name, None, None)
    assert mirror.requests == 1


def test_a_site_without_a_network_installs_from_a_file(tmp_path: Path, name: str, pins: PinnedTool) -> None:
    file = tmp_path / "a file.tar.gz"
    file.write_bytes(archive((f"./pulumi-resource-{name}", BINARY)))
    for sha256, refusal in [
        (None, "add --sha256"),
        ("zz", "no digest"),
        (digest_of(b"another"), "it is not opened"),
    ]:
        with pytest.raises(UserError, match=refusal):
            plugins.install(ROOT, tmp_path, name, file, sha256)
        assert not installed(tmp_path, name).parent.exists()
    plugins.install(ROOT, tmp_path, name, file, digest_of(file.read_bytes()).upper())
    assert installed(tmp_path, name).read_bytes() == BINARY


def test_without_a_network_the_command_for_a_file_is_named(
    tmp_path: Path, name: str, pins: PinnedTool, mirror: Mirror
) -> None:
    mirror.answer = gives(b"", 403)
    with pytest.raises(UserError, match=r"--file ARCHIVE --sha256 DIGEST") as caught:
        plugins.install(ROOT, tmp_path, name, None, None)
    assert pins.archive_name(version(f"pulumi-{name}")) in str(caught.value)


def test_a_plugin_that_is_attached_to_the_engine_is_there(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_DEBUG_PROVIDERS", f"random:1,{name}:40001")
    plugins.refuse_missing(TargetName(name), tmp_path)


def test_the_local_target_needs_no_plugin(tmp_path: Path) -> None:
    plugins.refuse_missing(TargetName.local, tmp_path)


def test_the_engine_downloads_no_plugin_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.t.yaml").write_text("config: {plinth:target: docker}\n")
    monkeypatch.setattr(
        "plinth.deployment.automation._command", lambda _: SimpleNamespace(command="pulumi", version=None)
    )
    options = _workspace(tmp_path, "t", Home(tmp_path / ".plinth", tmp_path / ".plinth" / "t"), None)
    assert options.env_vars
    assert options.env_vars["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    assert options.env_vars["PULUMI_HOME"] == str(pulumi_home(tmp_path))


def test_a_plugin_that_the_state_needs_is_named_with_its_command() -> None:
    printed = (
        "error: no resource plugin 'pulumi-resource-docker' found in the workspace at version v5.2.0 or on your $PATH"
    )
    assert last_error(printed).endswith("run `plinth plugins install docker`.")


def test_down_of_the_last_stack_keeps_the_plugins(tmp_path: Path) -> None:
    place = Home(tmp_path / ".plinth", tmp_path / ".plinth" / "t")
    plugin = installed(place.pulumi, "docker")
    plugin.parent.mkdir(parents=True)
    plugin.write_bytes(BINARY)
    (place.pulumi / "workspaces").mkdir()
    (place.pulumi / "credentials.json").write_text("{}")
    place.engine.mkdir()
    place.backend.mkdir()

    class Automation:
        class workspace:
            @staticmethod
            def remove_stack(_: str) -> None: ...

    forget(Stack("t", tmp_path, place, None, Automation()))  # type: ignore[arg-type]
    assert plugin.read_bytes() == BINARY
    assert sorted(entry.name for entry in place.pulumi.iterdir()) == ["plugins"]
    assert not place.backend.exists()
