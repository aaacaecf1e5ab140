"""Each example of `examples/`, run as its reader runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plinth.gateway.tokens import issue_token
from plinth.qdrant.search import point_id_for
from tests.gateway.conftest import SIGNING_KEY, Gateway

EXAMPLES = Path(__file__).parents[2] / "examples" / "quick_start"
# The program of each language, beside what it needs.
PROGRAMS = {"py": (sys.executable,), "sh": ("bash", "curl", "jq"), "ts": ("node",)}


def run(suffix: str, directory: Path, url: str, token: str) -> subprocess.CompletedProcess[str]:
    program, *needed = PROGRAMS[suffix]
    for name in (program, *needed):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} on PATH")
    example = EXAMPLES / f"quick_start.{suffix}"
    if suffix == "ts":
        # It has no types of its own, so that Node versions that strip none run it too.
        example = shutil.copy(example, directory / "quick_start.mjs")
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "GATEWAY_URL": url, "GATEWAY_TOKEN": token}
    return subprocess.run(
        [program, str(example)], env=environment, cwd=directory, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("suffix", PROGRAMS)
def test_the_quick_start_runs(gateway: Gateway, organisation: str, tmp_path: Path, suffix: str) -> None:
    ran = run(suffix, tmp_path, gateway.url, issue_token(SIGNING_KEY, organisation, "ann"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    point, hit = ran.stdout.splitlines()
    assert point == f"point {point_id_for(organisation, 'doc-123', 'chunk-0', 'mock', 'v1')}"
    assert re.fullmatch(r"cat 0\.\d+", hit)


@pytest.mark.parametrize("suffix", ["sh", "ts"])
def test_the_quick_start_says_why_it_is_refused(gateway: Gateway, tmp_path: Path, suffix: str) -> None:
    ran = run(suffix, tmp_path, gateway.url, issue_token("another-signing-key-of-32-bytes-or-more", "acme", "ann"))
    assert ran.returncode != 0
    assert "UNAUTHENTICATED" in ran.stdout + ran.stderr
