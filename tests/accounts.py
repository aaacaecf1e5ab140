"""The accounts that root runs services as, in tests."""

from __future__ import annotations

import os
import pwd
import subprocess

import pytest

from plinth.system.managed_process import fixed_environment


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


needs_accounts = pytest.mark.skipif(
    os.geteuid() != 0 or not _exists("plinth-qdrant"), reason="services have accounts where root runs them"
)


def as_account(name: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command under an account of this machine."""
    owner = pwd.getpwnam(name)
    change = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]
    return subprocess.run(
        [*change, "sh", "-c", command], cwd="/", env=fixed_environment(), capture_output=True, text=True, check=False
    )
