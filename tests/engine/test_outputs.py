"""`plinth outputs` of every target with everything turned on: each secret is masked, by Pulumi's own marks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pytest
from pulumi import automation

from plinth.cli import outputs as commands
from plinth.deployment.checkpoint import MASK
from plinth.deployment.environment_plan import plan_environment
from plinth.deployment.outputs import outputs
from plinth.deployment.stack import Stack
from plinth.paths import Home
from plinth.services import qdrant
from plinth.services.backup import CA
from plinth.services.secrets import secrets
from plinth.settings import Settings
from plinth.settings.loader import parse
from tests.conftest import ROOT
from tests.containers.scripted import Engine
from tests.program.docker_declared import PINS
from tests.project import BUILT, needs_pulumi

pytestmark = [pytest.mark.engine, needs_pulumi]
HOOK = {
    f"{name}_{part}": "https://h.test/x"
    for name in ("webhook", "ticket_webhook", "heartbeat")
    for part in ("url", "token")
}
EVERYTHING: dict[str, Any] = {
    "qdrant": {"alt_api_key": "the-next", "tls": {}},
    "postgres": {"databases": [{"name": "digi_core"}, {"name": "lernmi", "owner": "teacher"}]},
    "monitoring": {"alertmanager": HOOK, "loki": {"enabled": True}},
    "backup": {
        "repository": "s3:https://s3.test/b",
        "s3": {"access_key_id": "an-id", "secret_access_key": "a-key"},
        "ca_cert": "ca.pem",
    },
    "neo4j": {"enabled": True},
}
REST = {"repository": "rest:https://h.test:8000/b", "rest": {"user": "u", "password": "a-password"}}
LOCAL_OFF = {"neo4j": {"enabled": False}, "qdrant": {"alt_api_key": "the-next"}}
SETTINGS: dict[str, dict[str, Any]] = {
    # Without the programs that this machine may lack, and their address in a file of Alertmanager's.
    "local": {"target": "local", **EVERYTHING, **LOCAL_OFF, "monitoring": {}, "gateway": {"enabled": True}},
    "docker": {"target": "docker", **EVERYTHING},
    "docker, rest-server": {"target": "docker", **EVERYTHING, "backup": REST},
    "kubernetes": {
        "target": "kubernetes",
        **EVERYTHING,
        "neo4j": {"enabled": False},
        "monitoring": {"alertmanager": HOOK},
        "kubernetes": {"images": {"plinth": "registry.test/plinth:0.1.0"}},
    },
}
# What only services hand to each other is in no output.
INTERNAL = (
    "postgres_monitor",
    "redis_exporter",
    "grafana_copy",
    "web_config_salt",
    "alertmanager_",
    "heartbeat",
    "checksum_key",
)


@dataclass
class Case:
    """An environment that was deployed without its services, and the values of its secrets by name."""

    stack: Stack
    values: dict[str, str]


@pytest.fixture(scope="module", params=SETTINGS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    directory = tmp_path_factory.mktemp("outputs")
    settings = parse(SETTINGS[request.param], source="x")
    values = {name: f"the-value-of-{name}" for name in secrets(settings)}
    environment = {
        "PULUMI_BACKEND_URL": f"file://{directory}",
        "PULUMI_HOME": str(directory / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "for this test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    place, engine = Home(directory / ".plinth", directory / ".plinth" / "t"), Engine({PINS["plinth"]: {}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.host)
        patch.setenv("PATH", f"{BUILT}{os.pathsep}{os.environ['PATH']}")
        made = automation.create_or_select_stack(
            "t",
            "plinth",
            lambda: _program(settings, place, values),
            opts=automation.LocalWorkspaceOptions(env_vars=environment),
        )
        made.up()
        yield Case(Stack("t", ROOT, place, settings, made), values)
    engine.close()


def _program(settings: Settings, place: Home, values: Mapping[str, str]) -> None:
    plan = plan_environment(settings, ROOT, place)
    known = {name: pulumi.Output.secret(value) for name, value in values.items()}
    known |= {qdrant.TLS_CA: pulumi.Output.from_input("a signer"), CA: pulumi.Output.from_input("a signer")}
    for name, value in outputs(plan, known).items():
        pulumi.export(name, value)


def shown(case: Case, capsys: pytest.CaptureFixture[str], **options: bool) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "stack_of", lambda _: case.stack)
        commands.outputs("t", **options)
    return capsys.readouterr().out


@pytest.mark.requirement("S1-14")
def test_no_secret_is_in_the_outputs(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (shown(case, capsys), shown(case, capsys, json=True)):
        assert MASK in text
        for name, value in case.values.items():
            assert value not in text, name


def test_with_show_secrets_the_json_is_whole_and_of_the_same_shape(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    masked = json.loads(shown(case, capsys, json=True))
    plain = json.loads(shown(case, capsys, json=True, show_secrets=True))
    leaves = list(_leaves(plain, masked))
    assert [where for where, value, mask in leaves if value != mask and mask != MASK] == []
    hidden = {value for _, value, mask in leaves if mask == MASK}
    assert hidden <= set(case.values.values())
    absent = set(case.values) - {value.removeprefix("the-value-of-") for value in hidden}
    assert {name for name in absent if not name.startswith((*INTERNAL, *plain["left_out"]))} == set()


def test_the_text_is_a_line_for_each_value(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(case, capsys).splitlines()
    assert all(re.fullmatch(r"[\w.\[\]-]+ {2,}\S.*", line) for line in lines), lines
    assert any(re.fullmatch(r"qdrant\.url +https?://127\.0\.0\.1:\d+", line) for line in lines)
    assert any(re.fullmatch(rf"postgres\.databases\.lernmi\.password +{re.escape(MASK)}", line) for line in lines)
    if "grafana" in case.stack.outputs():
        assert any(re.fullmatch(rf"grafana\.secret_key +{re.escape(MASK)}", line) for line in lines)


def _leaves(plain: Any, masked: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(plain, dict):
        assert list(plain) == list(masked)
        for key, value in plain.items():
            yield from _leaves(value, masked[key], f"{where}.{key}")
    elif isinstance(plain, list):
        for number, (value, mask) in enumerate(zip(plain, masked, strict=True)):
            yield from _leaves(value, mask, f"{where}[{number}]")
    else:
        yield where, plain, masked
