"""The lines that runbooks tell people to type, and a shell to type them in."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.project import BUILT

RUNBOOKS = ROOT / "monitoring" / "runbooks"


def shown(pattern: str) -> set[str]:
    """The code of all pages that begins with a pattern."""
    pages = RUNBOOKS.glob("[A-Z]*[a-z].md")
    return {line for page in pages for line in re.findall(rf"`((?:{pattern})[^`]+)`", page.read_text())}


def typed(project: Path, *lines: str, collection: str = "trades_v1") -> str:
    """What lines print in a project with an environment `t`; each must succeed. Its outputs are asked for once."""
    words = [
        f". {shlex.quote(f'{RUNBOOKS}/shell.sh')} t || exit",
        "KNOWN=$(_outputs) || exit",
        '_outputs() { printf %s "$KNOWN"; }',
        f"C={collection}",
    ]
    script = [*words, *(f"{{ {line}; }} || {{ echo failed: {shlex.quote(line)}; exit 1; }}" for line in lines)]
    path = os.pathsep.join((str(Path(sys.executable).parent), str(BUILT), "/usr/local/bin", "/usr/bin", "/bin"))
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=project, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    return done.stdout
