"""`python -m plinth.targets.local.tools`: the local target's servers that no Debian package has, by pinned digests.

Without a network, or without a digest, the machine does without: the embedded engine serves, and Grafana is left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from plinth.errors import UserError
from plinth.paths import tools_of
from plinth.printable import visible
from plinth.settings.loader import project_root
from plinth.system.private_directories import make_passage
from plinth.targets.downloads import MIRROR, Patience, install, pinned, release_of


@dataclass(frozen=True)
class Tool:
    """A program that bootstrap may download, and what becomes of a machine without it."""

    name: str
    title: str
    variable: str
    without: str


TOOLS = (
    Tool("qdrant", "Qdrant", "PLINTH_QDRANT", "the embedded engine serves; a qdrant on PATH would be a real server"),
    Tool("grafana", "Grafana", "PLINTH_GRAFANA", "it is left out; a grafana on PATH would show the dashboards"),
)
PATIENCE = Patience()


def provide(root: Path, tool: Tool, environment: Mapping[str, str], patience: Patience = PATIENCE) -> str:
    """Have a program on this machine, or say why there is none: one line, in any case."""
    there = environment.get(tool.variable) or shutil.which(tool.name, path=environment.get("PATH"))
    if there:
        return f"{tool.title}: {there}."
    try:
        pins = pinned(root, tool.name)
        release = release_of(tool.name, pins)
        directory = tools_of(root)
        make_passage(directory, 0o755)
        installed = directory / f"{tool.name}-{release.version}"
        link = directory / tool.name
        if (installed / pins.member).is_file() and link.exists():
            return f"{tool.title}: {link} ({release.version})."
        sentence = install(pins, release, installed, environment.get(MIRROR), patience)
        _link(link, installed / pins.member)
    except (UserError, OSError) as error:
        return f"{tool.title}: {str(error).removesuffix('.')}; {tool.without}."
    return f"{tool.title}: {sentence}"


def _link(link: Path, program: Path) -> None:
    program.parent.chmod(0o755)
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(program.relative_to(link.parent))
    partial.replace(link)


def main() -> None:
    """Provide them all, side by side; a line for each."""
    root = project_root()
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        for line in pool.map(lambda tool: provide(root, tool, os.environ), TOOLS):
            print(visible(line))


if __name__ == "__main__":
    main()
