"""Images built from what this machine has installed, under the keys of config/images.yaml: no registry is needed.

One root file system of the local target's own programs, the libraries that they load and a shell; imported once,
with what the upstream image says of itself (`upstream.py`) for each key. Paths, accounts and owners are those of the
upstream images, for they are what the target relies on.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker

from plinth.programs.executables import Found, find, home
from plinth.programs.neo4j import PROGRAM as NEO4J
from plinth.services.monitoring import grafana as service
from plinth.settings.loader import parse
from tests.conftest import ROOT, real_qdrant
from tests.containers.upstream import UPSTREAM

POSTGRES = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")))
SHELL = ("bash", "sh", "cat", "grep", "head", "ls", "mv", "rm", "true", "sleep", "id", "env")
# Where upstream has a program, and what Debian calls it.
PROGRAMS = {
    "usr/local/bin/redis-server": "redis-server",
    "usr/local/bin/redis-cli": "redis-cli",
    "bin/prometheus": "prometheus",
    "bin/alertmanager": "prometheus-alertmanager",
    "bin/node_exporter": "prometheus-node-exporter",
    "bin/postgres_exporter": "prometheus-postgres-exporter",
    "redis_exporter": "prometheus-redis-exporter",
    "bin/busybox": "busybox",
}
# Loki and its agent by their keys; they come as binaries of nobody's packages.
COLLECTORS = {"loki": "usr/bin/loki", "fluent-bit": "fluent-bit/bin/fluent-bit"}
FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/share/zoneinfo/UTC",
    "/usr/share/prometheus/alertmanager/default.tmpl",
    "/usr/share/prometheus/alertmanager/email.tmpl",
)
OWNED = {
    "qdrant/storage": 1000,
    "qdrant/snapshots": 1000,
    "var/lib/postgresql/data": 999,
    "data": 999,
    "prometheus": 65534,
    "alertmanager": 65534,
    "loki": 10001,
    "var/lib/grafana": 472,
    "home/nonroot": 65532,
    "tmp": 0,
    "var/tmp": 0,
}
LINKS = {
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "bin/bash": "../usr/bin/bash",
    "bin/sh": "../usr/bin/sh",
    **{f"bin/{name}": "busybox" for name in ("wget", "nc", "base64", "tr")},
}
# Of an interpreter's library, what no service needs.
SKIPPED = {"test", "site-packages", "dist-packages", "__pycache__", "idlelib", "tkinter", "ensurepip"}
ACCOUNTS = {"root": 0, "postgres": 999, "qdrant": 1000, "nobody": 65534}
KEYS = (
    "qdrant",
    "postgres",
    "redis",
    "prometheus",
    "alertmanager",
    "node-exporter",
    "postgres-exporter",
    "redis-exporter",
)
PACKAGES = (
    *("qdrant_edge", "starlette", "uvicorn", "uvloop", "httptools", "orjson", "yaml", "click", "h11", "anyio", "idna"),
    *(
        "jwt",
        "typing_extensions",
        "pydantic",
        "pydantic_core",
        "annotated_types",
        "typing_inspection",
        "numpy",
        "jinja2",
    ),
    *(
        "markupsafe",
        "httpx",
        "httpcore",
        "certifi",
        "qdrant_client",
        "google",
        "grpc",
        "portalocker",
        "urllib3",
        "tenacity",
    ),
)


CHANGES = [
    f"ENV PATH={':'.join([*(str(Path(found).parent) for found in POSTGRES[-1:]), '/usr/local/bin:/usr/bin:/bin'])}",
    "ENV LC_ALL=C.UTF-8",
    "WORKDIR /qdrant",
]


def missing() -> str | None:
    """What the images cannot be built for want of, or None."""
    lacking = [name for name in PROGRAMS.values() if shutil.which(name) is None]
    if not POSTGRES:
        lacking.append("postgres")
    return f"{', '.join(lacking)} not installed on this machine: run `make bootstrap`" if lacking else None


def build(client: docker.DockerClient) -> dict[str, str]:
    """Image references by key; built unless the same programs were built before."""
    return _build(client, "base", _files(), KEYS)


def build_collectors(client: docker.DockerClient) -> dict[str, str]:
    """The same of Loki and its agent, which not every machine has: an image of their own, so that others stay small."""
    programs = collectors()
    files = {COLLECTORS[name]: path for name, path in programs.items()}
    return _build(client, "collectors", files | libraries(list(programs.values())), tuple(COLLECTORS))


def collectors() -> dict[str, Path]:
    """Loki's and the agent's programs by key; empty unless both are here."""
    found = {key: os.environ.get(f"PLINTH_{key.upper().replace('-', '_')}") or shutil.which(key) for key in COLLECTORS}
    return {key: Path(path).resolve() for key, path in found.items() if path} if all(found.values()) else {}


def build_grafana(client: docker.DockerClient) -> dict[str, str]:
    """The same of Grafana; empty where it is not."""
    program = service(parse({"target": "docker"}, source="tests"), (), logs=False).program
    found = find(program)
    if found is None:
        return {}
    binary = Path(found.argv[0]).resolve()
    whole = Path(home(program, Found((str(binary),))))
    files = {
        f"usr/share/grafana/{path.relative_to(whole)}": path
        for name in ("conf", "public")
        for path in (whole / name).rglob("*")
        if path.is_file()
    }
    shell = {f"usr/bin/{name}": Path(which(name)) for name in SHELL} | {"bin/busybox": Path(which("busybox"))}
    programs = {"usr/bin/grafana": binary, **shell}
    return _build(client, "dashboards", files | programs | libraries(list(programs.values())), ("grafana",))


def build_neo4j(client: docker.DockerClient) -> dict[str, str]:
    """The same of Neo4j and the Java that runs it; empty where either is not."""
    found, java = find(NEO4J), which("java") if shutil.which("java") else None
    if found is None or java is None:
        return {}
    runtime = Path(java).parent.parent
    trees = {"var/lib/neo4j": Path(found.argv[0]).resolve().parent.parent}
    trees |= {f"opt/java/{name}": runtime / name for name in ("bin", "conf", "lib")}
    files = {
        f"{to}/{(Path(place) / name).relative_to(tree)}": Path(place) / name
        for to, tree in trees.items()
        for place, _, names in os.walk(tree, followlinks=True)
        for name in names
        if (Path(place) / name).is_file()
    }
    files |= {f"usr/bin/{name}": Path(which(name)) for name in (*SHELL, "dirname", "install", "mkdir")}
    programs = [path for to, path in files.items() if re.search(r"(^|/)s?bin/|\.so$", to)]
    # Its own lie beside it, and are named by a way that leads through another directory.
    beside = {to: path for to, path in libraries(programs).items() if runtime not in path.parents}
    changes = ["ENV PATH=/var/lib/neo4j/bin:/opt/java/bin:/usr/bin:/bin", "ENV LC_ALL=C.UTF-8"]
    return _build(client, "graphs", files | beside, ("neo4j",), changes, {**OWNED, "data": 7474})


def _build(
    client: docker.DockerClient,
    name: str,
    files: dict[str, Path],
    keys: tuple[str, ...],
    changes: Sequence[str] = CHANGES,
    owned: Mapping[str, int] = OWNED,
) -> dict[str, str]:
    made = version(files, EMBEDDED_START, *(str(UPSTREAM[key]) for key in keys))
    base = f"plinth-tests/{name}:{made}"
    if not client.images.list(base):
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            pack(files, Path(packed.name), LINKS, owned)
            client.api.import_image_from_file(packed.name, f"plinth-tests/{name}", made, list(changes))
    for key in keys:
        if not client.images.list(f"plinth-tests/{key}:{made}"):
            _configure(client, base, key, made)
    return {key: f"plinth-tests/{key}:{made}" for key in keys}


def _configure(client: docker.DockerClient, base: str, key: str, tag: str) -> None:
    """The base with what the upstream image says of itself."""
    container = client.containers.create(base, ["true"])
    try:
        container.commit(f"plinth-tests/{key}", tag, changes=UPSTREAM[key].changes())
    finally:
        container.remove(v=True)


def version(files: dict[str, Path], *others: str) -> str:
    """A name for some files that changes with them, with the directories that they lie among, and with ``others``."""
    lines = [f"{path} {source.stat().st_size} {source.stat().st_mtime_ns}\n" for path, source in sorted(files.items())]
    return hashlib.sha256("".join([*lines, repr(OWNED), *others]).encode()).hexdigest()[:12]


def tiny(client: docker.DockerClient) -> str:
    """An image of one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        _text(tar, "tiny", "tiny\n", 0o644)
    client.api.import_image_from_data(packed.getvalue(), repository="plinth-tests/tiny", tag="1")
    return "plinth-tests/tiny:1"


def _files() -> dict[str, Path]:
    """Source by path in the image."""
    found = {f"usr/bin/{name}": Path(which(name)) for name in SHELL}
    found |= {path: Path(which(name)) for path, name in PROGRAMS.items()}
    found |= postgres()
    for path in FILES:
        if Path(path).exists():
            found[path.lstrip("/")] = Path(path)
    found |= {str(p.relative_to("/")): p for p in Path("/usr/lib/locale/C.utf8").rglob("*") if p.is_file()}
    found |= _real_qdrant() if real_qdrant() else _embedded()
    programs = [
        source for path, source in found.items() if re.search(r"(^|/)s?bin/|\.so(\.|$)|^redis_exporter|/qdrant$", path)
    ]
    return found | libraries(programs)


def postgres() -> dict[str, Path]:
    """The newest Postgres of this machine, where it is."""
    server = Path(POSTGRES[-1])
    trees = (server.parent.parent, Path("/usr/share/postgresql") / server.parts[-3], Path("/usr/share/zoneinfo/Etc"))
    return {
        str(p.relative_to("/")): p for tree in trees for p in tree.rglob("*") if p.is_file() and "pgxs" not in p.parts
    }


def _real_qdrant() -> dict[str, Path]:
    return {"qdrant/qdrant": Path(str(real_qdrant()))}


def _embedded() -> dict[str, Path]:
    """This interpreter, and as much of what it has installed as the embedded engine needs."""
    base, site = Path(sys.base_prefix), next(Path(sys.prefix).glob("lib/python*/site-packages"))
    interpreter = Path(sys.executable).resolve()
    found = {"opt/python/bin/python3": interpreter}
    library = next(base.glob(f"lib/python{sys.version_info.major}.{sys.version_info.minor}"))
    for path in library.rglob("*"):
        if path.is_file() and not SKIPPED & set(path.relative_to(library).parts):
            found[f"opt/python/lib/{library.name}/{path.relative_to(library)}"] = path
    for name in PACKAGES:
        for path in [
            *site.glob(f"{name}.py"),
            *site.glob(f"{name}*.so"),
            *(site / name).rglob("*"),
            *(site / f"{name}.libs").rglob("*"),
        ]:
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"opt/python/lib/{library.name}/site-packages/{path.relative_to(site)}"] = path
    for path in (ROOT / "plinth").rglob("*.py"):
        found[f"opt/python/lib/{library.name}/site-packages/{path.relative_to(ROOT)}"] = path
    return found


# In the place of the server's binary; `exec`, so that the engine is process 1 as the server would be. Debian's own
# Python looks for packages in a directory of another name.
EMBEDDED_START = """#!/bin/sh
export PYTHONHOME=/opt/python PYTHONPATH=$(echo /opt/python/lib/python3.*/site-packages)
exec /opt/python/bin/python3 -m plinth.embedded "$@"
"""


def libraries(programs: list[Path]) -> dict[str, Path]:
    """The shared libraries that programs load, where the loader looks for them."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    paths = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.M))
    return {_merged(path.lstrip("/")): Path(path) for path in paths if "site-packages" not in path}


def pack(files: dict[str, Path], packed: Path, links: dict[str, str], owned: Mapping[str, int] = OWNED) -> None:
    with tarfile.open(packed, mode="w") as tar:
        for path, owner in owned.items():
            _directory(tar, path, owner, 0o1777 if path in ("tmp", "var/tmp") else 0o755)
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        accounts = "".join(f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in ACCOUNTS.items())
        _text(tar, "etc/passwd", accounts, 0o644)
        if "opt/python/bin/python3" in files:
            _text(tar, "qdrant/qdrant", EMBEDDED_START, 0o755)
        for path, source in sorted(files.items()):
            entry = tar.gettarinfo(str(source.resolve()), path)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            with source.open("rb") as content:
                tar.addfile(entry, content)


def _merged(path: str) -> str:
    return re.sub(r"^(lib|lib64)/", r"usr/\1/", path)


def _directory(tar: tarfile.TarFile, path: str, owner: int, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    tar.addfile(entry)


def _text(tar: tarfile.TarFile, path: str, content: str, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content.encode()), mode
    tar.addfile(entry, io.BytesIO(content.encode()))


def which(name: str) -> str:
    found = shutil.which(name)
    assert found, name
    return str(Path(found).resolve())
