"""What every command imports before it does anything."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"kubernetes", "locust", "matplotlib", "neo4j", "pulumi_kubernetes", "pyarrow", "qdrant_client"}


def test_no_command_pays_for_what_another_needs() -> None:
    program = "import sys, plinth.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "plinth.cli.load" in loaded
    assert not HEAVY & set(loaded)
