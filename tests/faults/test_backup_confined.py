"""Where one account does it all, as in a container: what a drill's Postgres may see of it, even as a superuser."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from plinth.programs import python_runtime
from plinth.system import sandbox

pytestmark = [
    pytest.mark.skipif(sandbox.version() == 0, reason="this kernel has no Landlock"),
    pytest.mark.skipif(shutil.which("pg_dump") is None, reason="no Postgres on this machine: run `make bootstrap`"),
]
SCRIPT = """
    import os, sys
    from pathlib import Path
    from plinth.backup.temporary import instances
    from plinth.backup.temporary.launch import Here

    base = Path(sys.argv[1])
    here = Here(hidden=[base / "secret", base / "work"])
    with instances.postgres(base / "work" / "drill" / "postgres", here) as server, server.connect() as connection:

        def ask(program):
            try:
                connection.execute("DROP TABLE IF EXISTS public.told")
                connection.execute("CREATE TABLE public.told (line text)")
                connection.execute(f"COPY public.told FROM PROGRAM '{program}'")
                return connection.execute("SELECT string_agg(line, ' ') FROM public.told").fetchone()[0]
            except Exception as error:
                return f"refused: {error}".splitlines()[0]

        print("open", ask(f"cat {base}/beside/open"))
        print("secret", ask(f"cat {base}/secret"))
        print("stage", ask(f"cat {base}/work/stage"))
        print("environ", ask(f"cat /proc/{os.getpid()}/environ"))
        print("writes", ask(f"touch {base}/written"))
"""


def test_a_drills_superuser_reads_no_secret_of_the_account_that_it_runs_as(place: Path) -> None:
    base = place / "confined"
    (base / "work").mkdir(parents=True)
    (base / "beside").mkdir()
    for name in ("beside/open", "secret", "work/stage"):
        (base / name).write_text(f"content-of-{Path(name).name}")
    argv, environment = [sys.executable], {"PATH": os.environ["PATH"]}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (base, *base.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        python = python_runtime.python(place)
        if python.copy:
            python_runtime.provide(Path(python.copy))
        change = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]
        argv, environment = [*change, python.executable], {**environment, **python.environment}
    done = subprocess.run(
        [*argv, "-c", textwrap.dedent(SCRIPT), str(base)],
        env={**environment, "OPERATOR_TOKEN": "content-of-environ"},
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines["open"] == "content-of-open", done.stderr
    for name in ("secret", "stage", "environ", "writes"):
        assert lines[name].startswith("refused"), lines
    assert "content-of-secret" not in done.stdout
    assert "content-of-environ" not in done.stdout
    assert not (base / "written").exists()
