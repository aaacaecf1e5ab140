"""What Plinth's own image is built on where no registry is: this machine's interpreter with what takes backups."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import docker

from tests.conftest import ROOT, real_qdrant
from tests.containers.built import FILES, LINKS, POSTGRES, SHELL, SKIPPED, libraries, pack, postgres, version, which

BUILDING = ("install", "mkdir", "chmod", "uname")
BACKUP = ("restic", "redis-cli", "redis-check-rdb", "redis-server", "busybox")
# Their wheels load libraries that every Debian has.
COMPILED = ("numpy", "grpc", "psycopg_binary", "cryptography", "qdrant_edge")


def base(client: docker.DockerClient) -> str:
    """The base image, as the distribution's with its packages would be; made once."""
    site = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    files = _interpreter(site) | {f"usr/bin/{name}": Path(which(name)) for name in (*SHELL, *BUILDING)}
    files |= {f"usr/bin/{name}": Path(which(name)) for name in BACKUP} | postgres()
    files |= {path.lstrip("/"): Path(path) for path in FILES if Path(path).exists()}
    files |= {str(p.relative_to("/")): p for p in Path("/usr/lib/locale/C.utf8").rglob("*") if p.is_file()}
    programs = [source for path, source in files.items() if re.search(r"(^|/)s?bin/|\.so(\.|$)", path)]
    programs += [Path(found)] if (found := real_qdrant()) else []
    files |= libraries(programs + [path for name in COMPILED for path in (site / name).rglob("*.so")])
    made = version(files)
    reference = f"plinth-tests/python:{made}"
    if not client.images.list(reference):
        links = {**LINKS, "usr/local/bin/python3": str(Path(sys.executable).resolve())}
        links |= {f"usr/bin/{name}": f"../..{path}" for name, path in _clients().items()}
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            pack(files, Path(packed.name), links)
            client.api.import_image_from_file(packed.name, "plinth-tests/python", made, CHANGES)
    return reference


CHANGES = ["ENV PATH=/usr/local/bin:/usr/bin:/bin", "ENV LC_ALL=C.UTF-8", "ENV PYTHONPATH=/opt/pip"]


def fill_wheels(directory: Path) -> None:
    """Put the lock file's wheels into a directory, by this machine's own way to a package index."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    wanted = ROOT / "containers" / "plinth" / "requirements.lock"
    subprocess.run([*pip, "-d", str(directory), "-r", str(wanted)], check=True)


def _clients() -> dict[str, Path]:
    """What Debian's wrappers lead to."""
    return {name: Path(POSTGRES[-1]).with_name(name) for name in ("psql", "pg_dump", "pg_dumpall", "pg_restore")}


def _interpreter(site: Path) -> dict[str, Path]:
    """This interpreter where it is, and pip beside it."""
    interpreter = Path(sys.executable).resolve()
    found = {str(interpreter.relative_to("/")): interpreter}
    library = Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in library.rglob("*"):
        if path.is_file() and not SKIPPED & set(path.parts):
            found[str(path.relative_to("/"))] = path
    for path in (site / "pip").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            found[f"opt/pip/{path.relative_to(site)}"] = path
    return found
