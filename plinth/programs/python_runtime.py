"""A Python for services under accounts of their own, which cannot reach the Python that Plinth runs from.

A clone or a Python under /root is closed to other accounts. The parts out of reach are linked (or copied, from another
disk) to a directory within reach: the interpreter with its library, the installed packages, and Plinth itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from plinth.system.private_directories import make_passage

PACKAGE = Path(__file__).parent.parent
SKIPPED = {"site-packages", "test", "idlelib", "__pycache__"}
READ, ENTER = stat.S_IROTH, stat.S_IXOTH


@dataclass(frozen=True)
class Python:
    """A Python installation: its executable, the environment it needs, and the copy that it belongs to, if any."""

    executable: str
    environment: Mapping[str, str] = field(default_factory=dict)
    copy: str = ""


def python(within: Path) -> Python:
    """Return a Python that any account can run; its copy is a directory in ``within`` that :func:`provide` creates."""
    closed = [part for part, reachable in _parts().items() if not reachable]
    if not closed:
        return Python(sys.executable)
    copy = within / f"python-{_fingerprint()}"
    base = copy / "base" if "base" in closed else Path(sys.base_prefix)
    packages, plinth = (copy / part if part in closed else _source(part) for part in ("packages", "plinth"))
    environment = {"PYTHONPATH": f"{plinth}{os.pathsep}{packages}"}
    if "base" in closed:
        environment["LD_LIBRARY_PATH"] = str(base / "lib")
    return Python(str(base / "bin" / Path(sys.executable).resolve().name), environment, str(copy))


def provide(copy: Path) -> None:
    """Create the copy, unless it exists; the last older copy stays, for the processes that still run from it."""
    if copy.is_dir():
        return
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part, reachable in _parts().items():
        if not reachable:
            COPY[part](partial / part)
    partial.rename(copy)
    older = sorted(
        (path for path in copy.parent.glob("python-*") if path != copy), key=lambda path: path.stat().st_mtime
    )
    for path in older[:-1]:
        shutil.rmtree(path)


def reachable(path: Path) -> bool:
    """Return whether every account can reach a path, by its name and past its links, and read what is there."""
    return all(_reachable(way) for way in {path.absolute(), path.resolve()})


def _reachable(path: Path) -> bool:
    mode = path.stat().st_mode
    own = mode & READ and (mode & ENTER or not stat.S_ISDIR(mode))
    return bool(own) and all(above.stat().st_mode & ENTER for above in path.parents)


@cache
def _parts() -> dict[str, bool]:
    packages = _source("packages")
    return {
        "base": reachable(Path(sys.executable)) and reachable(Path(sysconfig.get_path("stdlib"))),
        "packages": all(map(reachable, (packages, *packages.iterdir()))),
        "plinth": all(map(reachable, PACKAGE.rglob("*.py"))),
    }


def _source(part: str) -> Path:
    return Path(sysconfig.get_path("purelib")) if part == "packages" else PACKAGE.parent


def _fingerprint() -> str:
    """Return a hash that changes with the interpreter, the installed packages and Plinth's sources."""
    seen = [sys.base_prefix, sys.version, *sorted(path.name for path in _source("packages").glob("*.dist-info"))]
    seen += [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(PACKAGE.rglob("*.py"))]
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:12]


def _base(to: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    executable = Path(sys.executable).resolve()
    _link(executable, to / "bin" / executable.name)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*"):
        _link(shared.resolve(), to / "lib" / shared.name)
    _link_tree(library, to / "lib" / library.name, SKIPPED)


def _packages(to: Path) -> None:
    _link_tree(_source("packages"), to, {"plinth"})


def _plinth(to: Path) -> None:
    _link_tree(PACKAGE, to / "plinth", {"__pycache__"})


COPY: Mapping[str, Callable[[Path], None]] = {"base": _base, "packages": _packages, "plinth": _plinth}


def _link_tree(source: Path, to: Path, skipped: set[str]) -> None:
    for name, path in _files(source, skipped):
        _link(path, to / name)


def _files(source: Path, skipped: set[str]) -> Iterator[tuple[Path, Path]]:
    for directory, directories, names in os.walk(source):
        directories[:] = [name for name in directories if name not in skipped]
        for name in names:
            # By its own name: Debian's library has two for one file.
            yield Path(directory).relative_to(source) / name, Path(directory, name).resolve()


def _link(source: Path, to: Path) -> None:
    if not source.is_file():
        return
    make_passage(to.parent, 0o755)
    mode = source.stat().st_mode
    if mode & READ:
        try:
            os.link(source, to)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, to)
    else:
        shutil.copy2(source, to)
        to.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
