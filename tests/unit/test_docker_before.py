"""What an `up` does about an engine before it touches it: leftovers of killed runs, config files, limits, addresses."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.deployment import docker_lifecycle
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.paths import home
from plinth.settings import Settings
from plinth.settings.loader import parse
from plinth.system.tls import issue, make_authority
from plinth.targets.content_digest import digest
from plinth.targets.docker.address import DEFAULT, engine_address, plugin_variables
from plinth.targets.docker.connection import Connection
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.leftovers import Recorded, leftovers
from plinth.targets.docker.limits import MEMORY_KEYS, refusals, warnings
from plinth.targets.docker.objects import Capacity, Container, Network
from plinth.targets.docker.preflight import Demand, make_sure
from tests.containers.scripted import Engine
from tests.services import plan_of, services_of

FILES = {"redis.conf": "port 1\n", "redis_password.secret": "x"}
OPEN_FILES = "error setting rlimits for ready process: error setting rlimit type 7: operation not permitted"


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine({"a/b:1": {}})
    yield made
    made.close()


def container(name: str, state: str, **labels: str) -> dict[str, Any]:
    return {"Id": f"id-of-{name}", "Names": [f"/{name}"], "State": state, "Labels": labels, "Ports": []}


def before(engine: Engine, demand: Demand | None = None, *, may_remove: bool = False, **recorded: Any) -> list[str]:
    """What is said while it is made sure of everything."""
    said: list[str] = []
    with Daemon(engine.host) as daemon:
        make_sure(daemon, demand or Demand("t"), Recorded(**recorded), said.append, lambda _: may_remove)
    return said


CARRIES = {"plinth.carries": "files"}


def test_a_load_that_runs_is_no_leftover_and_a_down_ends_it(engine: Engine, tmp_path: Path) -> None:
    engine.containers = [container("plinth-t-load-0a1b2c", "running", **{"plinth.load": "t"})]
    assert before(engine) == []
    assert engine.removed == []
    settings = parse({"target": "docker", "docker": {"host": engine.host}}, source="x")
    said: list[str] = []
    docker_lifecycle.release(Stack("t", tmp_path, home(tmp_path, "t"), settings), said.append)
    assert said == ["ending the load run plinth-t-load-0a1b2c"]
    # By its own end, so that it drops what it has made on the server.
    assert engine.posts[-1] == "/containers/id-of-plinth-t-load-0a1b2c/stop"
    assert engine.removed == ["/containers/id-of-plinth-t-load-0a1b2c"]


@pytest.mark.parametrize(
    ("containers", "recorded", "removed"),
    [
        # A container that never started, whether or not a run got to recording it.
        ([container("a", "created")], {}, ["/containers/id-of-a"]),
        ([container("a", "created")], {"ids": ["id-of-a"]}, ["/containers/id-of-a"]),
        # What carries files and is recorded stays; what a killed run left goes.
        ([container("a-config", "created", **CARRIES)], {"ids": ["id-of-a-config"]}, []),
        ([container("a-config", "created", **CARRIES)], {}, ["/containers/id-of-a-config"]),
        # One that runs: this project's where a run had begun to make it.
        ([container("a", "running")], {"ids": ["id-of-a"]}, []),
        ([container("a", "running")], {"begun": ["a"]}, ["/containers/id-of-a"]),
        ([container("a", "exited")], {"begun": ["a"]}, ["/containers/id-of-a"]),
        ([container("a", "restarting")], {"begun": ["a"]}, ["/containers/id-of-a"]),
    ],
)
def test_what_a_killed_run_left_is_removed(
    engine: Engine, containers: list[dict[str, Any]], recorded: dict[str, list[str]], removed: list[str]
) -> None:
    engine.containers = containers
    engine.volumes = {"id-of-a-config": (f"plinth-t-a-config-{digest(FILES, 't')}", FILES)}
    said = before(engine, **recorded)
    assert engine.removed == removed
    assert any("removed what an earlier run left unfinished" in text for text in said) == bool(removed)


@pytest.mark.parametrize(
    ("recorded", "removed"), [((), ["/networks/id-of-net"]), (("id-of-net",), [])], ids=["unrecorded", "recorded"]
)
def test_a_network_that_no_run_recorded_is_removed(engine: Engine, recorded: tuple[str], removed: list[str]) -> None:
    engine.networks = [{"Id": "id-of-net", "Name": "plinth-t"}]
    before(engine, ids=recorded)
    assert engine.removed == removed


@pytest.mark.parametrize("state", ["running", "exited", "paused"])
def test_what_may_be_another_projects_is_named_and_removed_by_leave_alone(engine: Engine, state: str) -> None:
    engine.containers = [container("plinth-t-redis", state), container("plinth-t-new", "created")]
    engine.networks = [{"Id": "id-of-net", "Name": "plinth-t"}]
    with pytest.raises(UserError, match="`docker rm -f plinth-t-redis`"):
        before(engine)
    assert engine.removed == []
    before(engine, may_remove=True)
    assert engine.removed == [
        "/containers/id-of-plinth-t-new",
        "/containers/id-of-plinth-t-redis",
        "/networks/id-of-net",
    ]


@given(
    st.lists(
        st.builds(
            Container,
            st.sampled_from("abc"),
            st.sampled_from("xyz"),
            st.sampled_from(("created", "running", "exited")),
            st.booleans(),
        )
    ),
    st.sets(st.sampled_from("abc")),
    st.sets(st.sampled_from("xyz")),
)
def test_nothing_that_runs_is_removed_unless_this_project_began_it(
    containers: list[Container], ids: set[str], begun: set[str]
) -> None:
    found = leftovers(containers, [Network("n", "n")], Recorded(ids, begun))
    for one in found.containers:
        assert one.state == "created" or (one.name in begun and one.id not in ids)
    assert all(one.id not in ids for one in found.doubtful)


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"redis.conf": FILES["redis.conf"]},
        {**FILES, "redis.conf": ""},
        {**FILES, "redis_password.secret": "another"},
        {**FILES, "more.conf": ""},
    ],
    ids=["nothing", "a part", "an empty file", "another file", "a file more"],
)
def test_a_carrier_whose_files_are_not_whole_is_made_again(engine: Engine, held: dict[str, str]) -> None:
    name = f"plinth-t-redis-config-{digest(FILES, 't')}"
    engine.containers = [container("plinth-t-redis-config", "created", **CARRIES)]
    engine.volumes = {"id-of-plinth-t-redis-config": (name, held)}
    said = before(engine, ids=["id-of-plinth-t-redis-config"])
    assert engine.removed == ["/containers/id-of-plinth-t-redis-config"]
    assert said == ["plinth-t-redis-config is made again: its config files are not whole"]


def test_a_carrier_whose_files_are_whole_stays(engine: Engine) -> None:
    engine.containers = [container("plinth-t-redis-config", "created", **CARRIES)]
    engine.volumes = {"id-of-plinth-t-redis-config": (f"plinth-t-redis-config-{digest(FILES, 't')}", FILES)}
    assert before(engine, ids=["id-of-plinth-t-redis-config"]) == []
    assert engine.removed == []


def docker(**values: Any) -> Settings:
    return parse({"target": "docker", **values}, source="x")


GIB = 1 << 30


@pytest.mark.parametrize(
    ("values", "capacity", "parts"),
    [
        ({"tier": "medium"}, Capacity(2, 64 * GIB), ("2 processor(s)", "qdrant, postgres would get 4", "plinth:tier")),
        ({"qdrant": {"cpus": 3}}, Capacity(2, 64 * GIB), ("would get 3", "plinth:qdrant.cpus to 2")),
        (
            {"qdrant": {"memory_mib": 65536}},
            Capacity(4, 23 * GIB),
            ("qdrant would get 65536", "plinth:qdrant.memory_mib"),
        ),
        (
            {"postgres": {"memory_mib": 9000}},
            Capacity(4, 8 * GIB),
            ("postgres would get", "plinth:postgres.memory_mib"),
        ),
        ({"redis": {"maxmemory_mib": 9000}}, Capacity(4, 8 * GIB), ("redis would get", "plinth:redis.maxmemory_mib")),
    ],
)
def test_what_the_engine_has_not_is_refused_with_a_setting_that_exists(
    engine: Engine, tmp_path: Path, values: dict[str, Any], capacity: Capacity, parts: tuple[str, ...]
) -> None:
    wanted = docker(**values, docker={"host": engine.host})
    engine.capacity = {"NCPU": capacity.cpus, "MemTotal": capacity.memory}
    with pytest.raises(UserError) as refused:
        _ = plan_of(wanted, tmp_path).target
    assert all(part in str(refused.value) for part in parts), refused.value
    assert engine.removed == engine.posts == []


def test_the_settings_that_a_refusal_names_exist() -> None:
    for key in ("qdrant.cpus", *MEMORY_KEYS.values(), "docker.nofile", "docker.nproc", "tier"):
        model: Any = Settings
        for part in key.split("."):
            model = model.model_fields[part].annotation if hasattr(model, "model_fields") else None
        assert model is not None, key


def test_an_environment_of_the_repository_fits_on_what_it_is_for() -> None:
    wanted = services_of(docker())
    assert list(refusals(wanted, Capacity(2, 4 * GIB))) == []


@pytest.mark.parametrize(
    ("capacity", "warning"),
    [
        (Capacity(2, 64 * GIB), None),
        (Capacity(2, 4 * GIB), "MiB of memory together"),
        (Capacity(2, 64 * GIB, limits_memory=False), "limits no container's memory"),
        # Without limits there is no sum of them to speak of.
        (Capacity(2, 4 * GIB, limits_memory=False), "limits no container's memory"),
    ],
)
def test_a_container_that_may_take_the_machines_memory_is_warned_of(capacity: Capacity, warning: str | None) -> None:
    given = list(warnings(services_of(docker()), capacity))
    assert len(given) == (0 if warning is None else 1)
    assert warning is None or warning in given[0]


@pytest.mark.parametrize(
    ("refused", "running", "part"),
    [
        (OPEN_FILES, [], "cannot give a container 65536 open files"),
        (OPEN_FILES.replace("7", "6"), [], "Set plinth:docker.nproc lower"),
        (None, [], None),
        # What a container of the stack has, the engine can give: nothing is tried.
        (OPEN_FILES, [("nofile", 65536), ("nproc", 4096)], None),
        (OPEN_FILES, [("nofile", 8192), ("nproc", 4096)], "Set plinth:docker.nofile lower"),
    ],
)
def test_limits_that_no_engine_tells_of_are_tried_before_anything_is_touched(
    engine: Engine, refused: str | None, running: list[tuple[str, int]], part: str | None
) -> None:
    engine.refused_start = refused
    engine.containers = [container("plinth-t-redis", "running")] if running else []
    engine.ulimits = [{"Name": name, "Soft": bound, "Hard": bound} for name, bound in running]
    demand = Demand("t", images={"redis": "a/b:1"}, limits={"nofile": 65536, "nproc": 4096})
    ids = ["id-of-plinth-t-redis"]
    if part is None:
        before(engine, demand, ids=ids)
    else:
        with pytest.raises(UserError, match="operation not permitted") as raised:
            before(engine, demand, ids=ids)
        assert part in str(raised.value)
    # What was tried with is gone.
    assert engine.removed == (["/containers/made"] if part or not running else [])


def test_the_last_lines_of_a_container_are_read_without_their_frames(engine: Engine) -> None:
    engine.printed = b"# Fatal error\n\n# Can't open config\n"
    with Daemon(engine.host) as daemon:
        assert daemon.last_lines("plinth-t-redis", 3) == ["# Fatal error", "# Can't open config"]


def write_context(home: Path, name: str, host: str) -> None:
    where = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    where.mkdir(parents=True)
    (where / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


REMOTE, OTHER = "tcp://192.0.2.1:2376", "unix:///run/user/1000/docker.sock"


@pytest.mark.parametrize(
    ("setting", "environment", "current", "host", "source"),
    [
        (None, {}, None, DEFAULT, "the usual socket"),
        (None, {}, "default", DEFAULT, "the usual socket"),
        (None, {}, "rootless", OTHER, "the docker context 'rootless'"),
        (None, {"DOCKER_CONTEXT": "remote"}, "rootless", REMOTE, "the docker context 'remote'"),
        (None, {"DOCKER_CONTEXT": "default"}, "rootless", DEFAULT, "the usual socket"),
        (None, {"DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": "remote"}, "rootless", "tcp://h:1", "DOCKER_HOST"),
        ("unix:///x", {"DOCKER_HOST": "tcp://h:1"}, "rootless", "unix:///x", "plinth:docker.host"),
    ],
)
def test_the_engine_is_the_docker_clients_own(
    tmp_path: Path, setting: str | None, environment: dict[str, str], current: str | None, host: str, source: str
) -> None:
    write_context(tmp_path, "rootless", OTHER)
    write_context(tmp_path, "remote", REMOTE)
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"currentContext": current} if current else {}))
    found = engine_address(setting, environment, tmp_path)
    assert (found.host, found.source) == (host, source)
    assert found.is_context == source.startswith("the docker context")


@pytest.mark.parametrize(
    ("config", "part"),
    [("{", "is not JSON"), ("[]", "holds no JSON object"), ('{"currentContext": "gone"}', "context 'gone'")],
)
def test_a_context_that_cannot_be_read_is_a_sentence(tmp_path: Path, config: str, part: str) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(config)
    with pytest.raises(UserError, match=part):
        engine_address(None, {}, tmp_path)


def test_docker_config_names_another_directory_and_certificates_go_with_their_address(tmp_path: Path) -> None:
    write_context(tmp_path, "remote", REMOTE)
    environment = {"DOCKER_CONFIG": str(tmp_path / ".docker"), "DOCKER_CONTEXT": "remote"}
    assert engine_address(None, environment, Path("/nowhere")).certificates is None
    tls = tmp_path / ".docker" / "contexts" / "tls" / hashlib.sha256(b"remote").hexdigest() / "docker"
    tls.mkdir(parents=True)
    assert engine_address(None, environment, Path("/nowhere")).certificates == tls


@pytest.mark.parametrize(
    ("environment", "certificates"),
    [
        ({"DOCKER_HOST": REMOTE}, ""),
        ({"DOCKER_HOST": REMOTE, "DOCKER_TLS_VERIFY": "1"}, "~/.docker"),
        ({"DOCKER_HOST": REMOTE, "DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": "/config"}, "/config"),
        ({"DOCKER_HOST": REMOTE, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}, "/certs"),
        ({"DOCKER_HOST": REMOTE, "DOCKER_CERT_PATH": "/certs", "DOCKER_CONTEXT": "rootless"}, "/certs"),
        ({"DOCKER_HOST": REMOTE, "DOCKER_CERT_PATH": "certs"}, f"{Path.cwd()}/certs"),
        # Empty is not set; and nothing of a network's address is for a socket.
        ({"DOCKER_HOST": REMOTE, "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}, ""),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}, ""),
        ({"DOCKER_HOST": OTHER, "DOCKER_CERT_PATH": "/certs"}, ""),
    ],
)
def test_the_plugin_is_told_the_engine_that_was_checked(
    tmp_path: Path, environment: dict[str, str], certificates: str
) -> None:
    told = plugin_variables(engine_address(None, environment, tmp_path))
    expected = certificates.replace("~", str(tmp_path))
    assert told == {"DOCKER_CONTEXT": "", "DOCKER_CERT_PATH": expected}


@pytest.fixture
def over_tls(engine: Engine, tmp_path: Path) -> Path:
    """The engine asks for a client's certificate; the directory that docker keeps one in."""
    authority = make_authority("tests")
    for name, pair in {
        "server": issue(authority, "engine", ["127.0.0.1"]),
        "client": issue(authority, "client", ["client"]),
    }.items():
        (tmp_path / name).mkdir()
        for file, text in {"cert": pair.cert, "key": pair.key, "ca": authority.cert}.items():
            (tmp_path / name / f"{file}.pem").write_text(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "server" / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server" / "cert.pem", tmp_path / "server" / "key.pem")
    engine.server.socket = context.wrap_socket(engine.server.socket, server_side=True)
    return tmp_path / "client"


def test_an_engine_over_tls_answers_whoever_has_its_certificates(
    engine: Engine, over_tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(over_tls))
    with Connection() as connection:
        assert connection.version() == "28.0"
    for name in ("ca", "cert", "key"):
        file = over_tls / f"{name}.pem"
        text = file.read_text()
        file.unlink()
        with pytest.raises(UserError, match=r"put ca\.pem, cert\.pem and key\.pem there"):
            Connection()
        file.write_text(text)


def test_an_engine_that_asks_for_tls_is_met_with_what_to_set(engine: Engine) -> None:
    # As Go's server answers in the clear.
    engine.refused = "Client sent an HTTP request to an HTTPS server.\n"
    with pytest.raises(UserError, match=r"asks for TLS.* DOCKER_CERT_PATH"), Connection(engine.host) as connection:
        connection.version()


@pytest.mark.parametrize(
    ("variable", "host", "part"),
    [
        ("DOCKER_HOST", "ssh://me@h", "DOCKER_HOST names the Docker engine ssh://me@h"),
        ("DOCKER_HOST", "unix:///nowhere/docker.sock", "DOCKER_HOST names it"),
    ],
)
def test_what_named_an_engine_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, host: str, part: str
) -> None:
    monkeypatch.setenv(variable, host)
    with pytest.raises(UserError, match=part), Connection() as engine:
        engine.version()


def test_who_may_not_use_the_socket_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        if os.geteuid() == 0:
            monkeypatch.setattr(socket.socket, "connect", refuse)
        with pytest.raises(UserError) as refused, Connection(f"unix://{path}") as engine:
            engine.version()
    said = str(refused.value)
    assert f"The account {getpass.getuser()} may not use" in said
    assert "usermod -aG" in said
    assert "systemctl start" not in said
