"""Plinth's own image: what goes into its build, and whether the one at hand is of this installation's sources."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import plinth
from plinth.errors import UserError
from plinth.load.image_datasets import DIRECTORY as DATA
from plinth.load.image_datasets import file_name
from plinth.load.slo import Data
from plinth.programs.spec import OWN_IMAGE
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.images import BASE, Images

DIRECTORY = Path("containers") / "plinth"
PACKAGE = Path("package")
LOCUSTFILE = Path("load") / "locustfile.py"
DOCKERFILE = str(DIRECTORY / "Dockerfile")
SOURCES = "plinth.sources"
QDRANT = "qdrant"
# The engine hands these to each step by itself and keeps them out of the image's history.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
PASSED_ON = ("PIP_INDEX_URL", *PROXIES)


@dataclass(frozen=True)
class Content:
    """What the image is made of beside this package.

    ``version`` is Qdrant's, for drills. ``sets`` are the data sets of the load gate that it is to hold, ``data`` those
    that could be had here, by file name. ``wheels`` is a directory where the engine reaches no package index.
    """

    root: Path
    version: str
    sets: Sequence[Data] = ()
    data: Mapping[str, bytes] = field(default_factory=dict)
    wheels: Path | None = None


def build(daemon: Daemon, images: Images, content: Content, say: Callable[[str], None]) -> str:
    """Build the image and give its reference; ``say`` hears of each step. Raises :class:`UserError`."""
    bases, reference = (images.of(BASE), images.of(QDRANT, content.version)), images.of(OWN_IMAGE)
    contents = sources(content.root, content.sets)
    data = {str(PACKAGE / DATA / name): packed for name, packed in content.data.items()}
    context = archive(contents | data | _wheels(content.wheels))
    names = [daemon.local_name(base) for base in bases]
    for name in names:
        if not daemon.has_image(name):
            say(f"pulling {name}")
            daemon.pull(name)
    arguments = dict(zip(("BASE", "QDRANT"), names, strict=True)) | passed_on(os.environ)
    for words in daemon.build(context, DOCKERFILE, reference, arguments, {SOURCES: digest(contents)}):
        if words.startswith("Step "):
            say(words.splitlines()[0])
    return reference


def is_stale(daemon: Daemon, reference: str, root: Path, sets: Sequence[Data] = ()) -> bool:
    """Whether an image was built of other sources than these; one that does not say so is somebody's own choice."""
    built_of = daemon.labels(reference).get(SOURCES)
    return built_of is not None and built_of != digest(sources(root, sets))


def sources(root: Path, sets: Sequence[Data] = ()) -> dict[str, bytes]:
    """Return the image's sources, by path: the Dockerfile with its lock file, this installation's package, the load.

    The load gate's data sets are there by name only: their content follows from the names, and is 13 MB.
    """
    found = {path.relative_to(root): path for path in sorted((root / DIRECTORY).iterdir()) if path.is_file()}
    package = Path(plinth.__file__).parent
    found |= {
        PACKAGE / "plinth" / path.relative_to(package): path
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    found[PACKAGE / LOCUSTFILE] = root / LOCUSTFILE
    names = "".join(f"{file_name(data)}\n" for data in sets)
    version = metadata.version("plinth")
    about = f"Metadata-Version: 2.1\nName: plinth\nVersion: {version}\n"
    return {str(name): path.read_bytes() for name, path in found.items()} | {
        str(PACKAGE / f"plinth-{version}.dist-info" / "METADATA"): about.encode(),
        str(PACKAGE / DATA / "sets"): names.encode(),
    }


def digest(contents: Mapping[str, bytes]) -> str:
    """Return a hash of some files that changes with them."""
    total = hashlib.sha256()
    for name, content in sorted(contents.items()):
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def archive(contents: Mapping[str, bytes]) -> bytes:
    """Files as a tar, the same for the same files, so that the engine takes unchanged steps from its cache."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of this machine's environment that a build needs to reach the package index."""
    return {name: environment[name] for name in PASSED_ON if environment.get(name)}


def _wheels(directory: Path | None) -> dict[str, bytes]:
    return dict(_read_wheels(directory)) if directory else {}


def _read_wheels(directory: Path) -> Iterator[tuple[str, bytes]]:
    found = sorted(directory.glob("*.whl"))
    if not found:
        raise UserError(
            f"{directory} holds no wheel; fill it with `pip download --no-deps --require-hashes -d {directory} "
            f"-r {DIRECTORY}/requirements.lock` on a machine with a package index."
        )
    yield from ((f"wheels/{path.name}", path.read_bytes()) for path in found)
