"""Neo4j: off unless asked for, sized by the tier, its password in no place but a file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup.config import Config
from plinth.errors import UserError
from plinth.health.status import Policy, check, dependencies
from plinth.services.neo4j import PASSWORD, credential
from plinth.services.neo4j import service as neo4j
from plinth.services.render import command, files
from plinth.services.secrets import secrets
from plinth.settings.loader import load_settings, parse
from tests.answers import Answers, close, serve
from tests.conftest import ROOT
from tests.services import services_of
from tests.unit.test_services import Elsewhere, secret_names

pytestmark = pytest.mark.requirement("S1-02")
ON = {"target": "local", "neo4j": {"enabled": True}}


def test_it_is_off_unless_asked_for() -> None:
    for env in ("local", "dev", "cluster"):
        assert "neo4j" not in {service.name for service in services_of(load_settings(ROOT, env))}
    assert "neo4j" in {service.name for service in services_of(parse(ON, source="x"))}
    assert "neo4j" not in {service.name for service in services_of(parse(ON, source="x"), left_out=("neo4j",))}


def test_its_password_is_in_one_file_and_not_as_it_is() -> None:
    settings = parse(ON, source="x")
    assert PASSWORD in secrets(settings)
    service, known = neo4j(settings), {PASSWORD: "the-password-itself"}
    contents = files(service, Elsewhere(), known, ROOT)
    filled = command(service, Elsewhere())
    assert contents["auth.ini"] == f"neo4j:{credential('the-password-itself')}:\n"
    assert "the-password-itself" not in json.dumps([contents, filled.arguments, filled.initialise])
    assert filled.environment["NEO4J_CONF"] == "/etc/neo4j/"


@pytest.mark.parametrize("tier", ["small", "medium", "large"])
def test_heap_and_pages_leave_room_in_the_memory_of_the_tier(tier: str) -> None:
    settings = parse({**ON, "tier": tier}, source="x")
    text = files(neo4j(settings), Elsewhere(), {PASSWORD: "p"}, ROOT)["neo4j.conf"]
    conf = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    heap, pages = (int(conf[f"server.memory.{key}"].removesuffix("m")) for key in ("heap.max_size", "pagecache.size"))
    assert 0 < pages < heap < heap + pages <= neo4j(settings).limits.memory_mib * 3 / 4
    assert conf["server.http.listen_address"] == "127.0.0.1:7474"
    assert conf["server.bolt.listen_address"] == "127.0.0.1:7687"
    assert conf["dbms.usage_report.enabled"] == "false"


def test_a_credential_is_what_a_server_of_5_26_took() -> None:
    digest = "49df862ca925689d8267fba9eab145ed7afb64953d4f8d83aa46e70b0c096365"
    assert credential("secret-password-42") == f"SHA-256,{digest},aea2d3744899ce8c1b64889d09af0023,1024"


@given(st.text(min_size=8), st.text(min_size=8))
def test_a_credential_follows_from_the_password_and_can_be_checked(password: str, other: str) -> None:
    name, digest, salt, rounds = credential(password).split(",")
    found = bytes.fromhex(salt) + password.encode()
    for _ in range(int(rounds)):
        found = hashlib.sha256(found).digest()
    assert (name, digest) == ("SHA-256", found.hex())
    assert (credential(other) == credential(password)) is (other == password)


def test_a_password_that_neo4j_would_refuse_is_refused_before() -> None:
    with pytest.raises(UserError, match=r"neo4j\.password"):
        parse({"target": "local", "neo4j": {"enabled": True, "password": "short"}}, source="x")


class Reached(Elsewhere):
    """A place with numbers for ports."""

    def address(self, service: str, port: str) -> str:
        return f"{service}.test:{7687 if port == 'bolt' else 1}"


@pytest.mark.requirement("S1-06")
@pytest.mark.parametrize("target", ["local", "docker"])
def test_the_backups_beside_it_know_its_address_and_a_file_of_its_password(target: str) -> None:
    settings = parse({**ON, "target": target}, source="x")
    known = dict.fromkeys(secret_names(settings), "the-password-itself")
    (backups,) = [each for each in services_of(settings) if each.name == "plinth-backup"]
    assert PASSWORD in backups.secret_files
    assert "neo4j" in backups.needs
    text = files(backups, Reached(), known, ROOT)["config.yaml"]
    assert "the-password-itself" not in text
    config = Config.model_validate(yaml.safe_load(text))
    assert config.neo4j is not None
    assert (config.neo4j.host, config.neo4j.port, config.neo4j.user) == ("neo4j.test", 7687, "neo4j")
    assert config.not_taken == {}


@pytest.fixture
def server() -> Iterator[int]:
    """A server that answers as Neo4j does: 401 with an error, or the row, to who shows the password `right`."""

    class Api(Answers):
        def do_POST(self) -> None:
            login = base64.b64decode((self.headers.get("authorization") or "").removeprefix("Basic ")).decode()
            asked = json.loads(self.content())
            good = login == "neo4j:right" and asked["statements"] and self.path == "/db/neo4j/tx/commit"
            errors = (
                [] if good else [{"code": "Neo.ClientError.Security.Unauthorized", "message": "Invalid credential."}]
            )
            self.reply(200 if good else 401, {"results": [], "errors": errors})

    made = serve(Api)
    yield made.server_address[1]
    close(made)


@pytest.mark.parametrize(("password", "detail"), [("right", None), ("wrong", "Invalid credential")])
def test_status_logs_in(server: int, password: str, detail: str | None) -> None:
    where = {"url": f"http://127.0.0.1:{server}", "user": "neo4j", "password": password}
    (asked,) = [
        d for d in dependencies({"qdrant": {"url": "http://x", "api_key": None}, "neo4j": where}) if d.name == "neo4j"
    ]
    found = check("plinth/x", [asked], Policy(timeout_ms=2000, retries=0))
    assert found.ready is (detail is None)
    assert (detail or "ok") in found.summary
