"""The real parts that stand-ins take the place of elsewhere: what each lacks here, and an environment on it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from tests.conftest import ROOT, real_qdrant
from tests.containers import built, own
from tests.containers.engine import Containers, why_not
from tests.containers.stack import Stack, settings
from tests.engine.project import Project
from tests.project import BUILT, Environment

KUBECONFIG, CONTEXT, IMAGES = "PLINTH_REAL_KUBECONFIG", "PLINTH_REAL_CONTEXT", "PLINTH_REAL_MIRROR"
NODES = "PLINTH_REAL_NODES"
NOTHING_CHANGES = "nothing to change"


@dataclass
class Story:
    """An environment on a real part: how it is deployed, and how one of its stores is killed."""

    environment: Environment
    up: Callable[[], str]
    down: Callable[[], str]
    kill: Callable[[], None]


@dataclass(frozen=True)
class Part:
    """A real part, why it cannot be met here, and how an environment stands on it."""

    name: str
    lacking: Callable[[], str | None]
    stands: Callable[[Path], Iterator[Story]]

    @contextmanager
    def story(self) -> Iterator[Story]:
        """An environment that is removed afterwards, whatever became of it."""
        with tempfile.TemporaryDirectory(prefix="plinth-real-") as directory:
            # Services' accounts go through it.
            Path(directory).chmod(0o711)
            root = Path(directory) / "a project"
            root.mkdir(mode=0o755)
            yield from self.stands(root)


def on_path(binary: str, where: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(binary) else f"no {binary} on PATH: {where}"


def lacks_docker_plugin() -> str | None:
    return on_path("pulumi-resource-docker", "put the released plugin there")() or why_not()


def lacks_language_host() -> str | None:
    return on_path("pulumi-language-python", "it comes with Pulumi's release archive")()


def lacks_qdrant() -> str | None:
    return None if real_qdrant() else "no qdrant on PATH or in PLINTH_QDRANT"


def lacks_cluster() -> str | None:
    if KUBECONFIG not in os.environ:
        return f"{KUBECONFIG} names no cluster that tests may use"
    plugin = on_path("pulumi-resource-kubernetes", "put the released plugin there")()
    return plugin or on_path("kubectl", "it deletes the namespace again")()


def on_qdrant(root: Path) -> Iterator[Story]:
    """The local target, whose server is the real one."""
    yield from _local(root, lambda project: lambda: project.plinth("up", "t", "--no-verify"))


def on_language_host(root: Path) -> Iterator[Story]:
    """The local target by plain `pulumi up`, which runs the program by its own host."""
    (root / ".venv").symlink_to(ROOT / ".venv")
    shutil.copy(ROOT / "__main__.py", root)

    def by_pulumi(project: Project) -> Callable[[], str]:
        def up() -> str:
            # The state and its passphrase are made by the first command of Plinth's own, and gone after `down`.
            project.plinth("preview", "t")
            return _pulumi(project, "up", "--yes", "--skip-preview", "--refresh", "--stack", "t")

        return up

    yield from _local(root, by_pulumi)


def on_docker_plugin(root: Path) -> Iterator[Story]:
    """The docker target by the released plugin, on stand-in images with the users and volumes of the released ones."""
    client = docker.from_env()
    env = f"real{secrets.token_hex(3)}"
    images = built.build(client)
    stack = Stack(root, settings(images | {"python": own.base(client)}), env)
    containers = Containers(client, env)
    with ExitStack() as undo:
        undo.callback(containers.remove)
        yield Story(
            stack,
            lambda: stack.plinth("up", env, "--no-verify"),
            lambda: stack.plinth("down", env, "--yes"),
            lambda: containers.running()["redis"].kill(),
        )


def on_cluster(root: Path) -> Iterator[Story]:
    """The kubernetes target: three nodes of Qdrant, or so many, in a namespace of their own, which goes again."""
    nodes = int(os.environ.get(NODES, "3"))
    namespace = f"plinth-real-{secrets.token_hex(3)}"
    wanted: dict[str, object] = {
        "kubeconfig": os.environ[KUBECONFIG],
        "context": os.environ.get(CONTEXT),
        "namespace": namespace,
        "mirror": os.environ.get(IMAGES),
    }
    environment = Environment(
        root,
        {
            "plinth:target": "kubernetes",
            "plinth:kubernetes": {key: value for key, value in wanted.items() if value},
            "plinth:qdrant": {"nodes": nodes, "replication_factor": min(nodes, 2)},
        },
    )
    kubectl = ["kubectl", "--kubeconfig", os.environ[KUBECONFIG]]
    if CONTEXT in os.environ:
        kubectl += ["--context", os.environ[CONTEXT]]
    with ExitStack() as undo:
        undo.callback(subprocess.run, [*kubectl, "delete", "namespace", namespace, "--wait=false"], check=False)
        yield Story(
            environment,
            lambda: environment.plinth("up", "t", "--no-verify"),
            lambda: environment.plinth("down", "t", "--yes"),
            lambda: _run(*kubectl, "-n", namespace, "delete", "pod", "redis-0", "--now"),
        )


def _local(root: Path, up: Callable[[Project], Callable[[], str]]) -> Iterator[Story]:
    project = Project(root, "server" if real_qdrant() else "embedded")
    with ExitStack() as undo:
        undo.callback(project.plinth, "down", "t", "--yes", expect=None)
        yield Story(
            project,
            up(project),
            lambda: project.plinth("down", "t", "--yes"),
            lambda: project.supervised()["redis-server"].send_signal(signal.SIGKILL),
        )


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=300)


def _pulumi(project: Project, *arguments: str) -> str:
    base = project.root / ".plinth"
    variables = {
        "PATH": os.pathsep.join(map(str, (ROOT / ".venv" / "bin", BUILT, os.environ["PATH"]))),
        "PULUMI_BACKEND_URL": f"file://{base / 'backend'}",
        "PULUMI_HOME": str(base / "pulumi"),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(base / "passphrase"),
        "no_grpc_proxy": "localhost,127.0.0.1",
    }
    done = subprocess.run(
        ["pulumi", *arguments, "--non-interactive", "--color", "never"],
        cwd=project.root,
        env={**project.surroundings(), **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    unchanged = not any(f" {word}" in done.stdout for word in ("created", "updated", "deleted", "replaced"))
    return done.stdout + (NOTHING_CHANGES if unchanged else "")


PARTS = (
    Part("qdrant", lacks_qdrant, on_qdrant),
    Part("language host", lacks_language_host, on_language_host),
    Part("docker plugin", lacks_docker_plugin, on_docker_plugin),
    Part("kubernetes", lacks_cluster, on_cluster),
)
