"""The local target's parts against real processes: supervision, files, ports, programs, kept secrets."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from plinth.errors import UserError
from plinth.programs.executables import Found, find, home
from plinth.programs.spec import Program
from plinth.resources.secret import kept_secret
from plinth.settings.loader import parse
from plinth.system.ports import refuse_taken
from plinth.targets.local.executables import locate
from plinth.targets.local.process import ProcessSpec, running, start, stop
from plinth.targets.local.supervisor import ProgramFailed, Supervisor
from tests.conftest import free_port
from tests.services import services_of
from tests.waiting import wait_for


def spec(tmp_path: Path, *argv: str, **values: object) -> ProcessSpec:
    run = tmp_path / "run"
    return ProcessSpec("p", str(run), str(run / "config" / "p"), argv or ("/bin/sleep", "1000"), **values)  # type: ignore[arg-type]


def test_a_killed_process_comes_back_by_itself_and_stop_leaves_nothing(tmp_path: Path) -> None:
    wanted = spec(tmp_path)
    first = start(wanted, {"a.conf": "x"})
    try:
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: running(wanted) not in (None, first))
        second = running(wanted)
        assert second is not None
        daemon = Supervisor(tmp_path / "run").pid()
    finally:
        stop(wanted)
    assert not psutil.pid_exists(second.pid)
    assert daemon is not None
    wait_for(lambda: not psutil.pid_exists(daemon))
    assert not (tmp_path / "run").exists()


def test_services_that_stop_last_at_once_leave_nothing(tmp_path: Path) -> None:
    both = [replace(spec(tmp_path), name=name, config=str(tmp_path / name)) for name in ("one", "other")]
    for wanted in both:
        start(wanted, {})
    with ThreadPoolExecutor() as pool:
        list(pool.map(stop, both))
    assert list(tmp_path.glob("run*")) == []


def test_who_waits_for_the_lock_of_a_directory_that_goes_holds_the_new_one(tmp_path: Path) -> None:
    supervisor, lock = Supervisor(tmp_path / "run"), tmp_path / "run" / "lock"

    def hold() -> bool:
        with supervisor.locked():
            return lock.exists()

    with ThreadPoolExecutor() as pool:
        with supervisor.locked():
            waiting = pool.submit(hold)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            supervisor.run.rename(tmp_path / "gone")
        assert waiting.result(timeout=10)


def test_a_changed_file_restarts_it_and_a_stale_one_goes(tmp_path: Path) -> None:
    wanted = spec(tmp_path)
    first = start(wanted, {"a.conf": "x", "b.conf": "y"})
    try:
        second = start(wanted, {"a.conf": "z"})
        assert second != first
        config = Path(wanted.config)
        assert {path.name: path.read_text() for path in config.iterdir()} == {"a.conf": "z"}
        assert stat.S_IMODE((config / "a.conf").stat().st_mode) == 0o600
    finally:
        stop(wanted)


def test_one_that_does_not_stay_up_is_reported_with_its_last_words(tmp_path: Path) -> None:
    wanted = spec(tmp_path, "/bin/sh", "-c", "echo the disk is on fire >&2; exit 3")
    try:
        with pytest.raises(ProgramFailed, match=r"p does not stay up.*the disk is on fire"):
            start(wanted, {})
        assert running(wanted) is None
    finally:
        stop(wanted)


def test_a_deep_directory_does_not_break_the_control_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    wanted = spec(deep)
    start(wanted, {})
    assert running(wanted)
    stop(wanted)
    assert not (deep / "run").exists()


def test_initialise_fills_an_empty_volume_once_and_an_interrupted_one_is_begun_again(tmp_path: Path) -> None:
    volume = tmp_path / "data" / "v"
    fill = (sys.executable, "-c", f"open(r'{volume}/made', 'a').write('x')")
    (tmp_path / "data" / "v.partial").mkdir(parents=True)
    (tmp_path / "data" / "v.partial" / "half").touch()
    wanted = spec(tmp_path, volumes=(str(volume),), initialise=fill)
    try:
        start(wanted, {})
        start(wanted, {})
        assert [path.name for path in volume.iterdir()] == ["made"]
        assert (volume / "made").read_text() == "x"
    finally:
        stop(wanted)


def test_a_failed_initialise_names_the_volume_and_leaves_it_empty(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    wanted = spec(
        tmp_path, volumes=(str(volume),), initialise=("/bin/sh", "-c", "echo No space left on device >&2; exit 1")
    )
    with pytest.raises(ProgramFailed, match=r"could not prepare .*No space left on device"):
        start(wanted, {})
    assert not list(volume.iterdir())


def test_a_program_that_starts_beside_leaves_an_initialise_in_peace(tmp_path: Path) -> None:
    # The daemon, which the second program starts, ends what an earlier daemon left in the environment's place.
    volume = tmp_path / "data" / "v"
    begun = tmp_path / "begun"
    fill = ("/bin/sh", "-c", f"touch {begun}; sleep 2; touch {volume}/made")
    first = spec(tmp_path, volumes=(str(volume),), initialise=fill)
    second = replace(spec(tmp_path), name="q", config=str(tmp_path / "run" / "config" / "q"))
    try:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(start, first, {})
            wait_for(begun.exists)
            start(second, {})
            slow.result()
        assert (volume / "made").exists()
    finally:
        stop(first)
        stop(second)


def test_a_taken_port_is_named_with_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as refused:
            refuse_taken({"redis.port": port}, "127.0.0.1", own=())
        assert f"Port {port} (plinth:redis.port) is taken by" in str(refused.value)
        assert f"pid {os.getpid()}" in str(refused.value)
        refuse_taken({"redis.port": port}, "127.0.0.1", own=(os.getpid(),))
    refuse_taken({"redis.port": free_port()}, "127.0.0.1", own=())


def test_a_program_is_its_variable_then_its_directories_then_path_then_its_substitute(tmp_path: Path) -> None:
    for place in ("on-path", "installed/9/bin", "installed/15/bin"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "tool").touch(mode=0o755)
    program = Program("i", ("tool",), "pkg", "TOOL", (f"{tmp_path}/installed/*/bin",), ("sub",))
    assert find(program, {"TOOL": str(tmp_path / "on-path" / "tool")}).argv == (str(tmp_path / "on-path" / "tool"),)  # type: ignore[union-attr]
    assert "15" in find(program, {"PATH": str(tmp_path / "on-path")}).argv[0]  # type: ignore[union-attr]
    bare = Program("i", ("tool",), "pkg", substitute=("sub",))
    assert find(bare, {"PATH": str(tmp_path / "on-path")}).argv[0].endswith("on-path/tool")  # type: ignore[union-attr]
    found = find(bare, {"PATH": "/nowhere"})
    assert found is not None
    assert (found.argv, found.substitute) == (("sub",), True)
    with pytest.raises(UserError, match="TOOL is /nowhere/tool, which is not an executable"):
        find(program, {"TOOL": "/nowhere/tool"})


def test_a_program_unpacked_as_a_whole_has_its_files_above_it_and_another_where_packages_do(
    tmp_path: Path,
) -> None:
    program = Program("i", ("tool",), "pkg", home="/usr/share/tool", landmark="conf/defaults")
    for place in ("whole/bin", "whole/conf", "bin"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "whole/bin/tool").touch(mode=0o755)
    (tmp_path / "bin/tool").symlink_to(tmp_path / "whole/bin/tool")
    found = Found((str(tmp_path / "bin/tool"),))
    assert home(program, found) == "/usr/share/tool"
    (tmp_path / "whole/conf/defaults").touch()
    assert home(program, found) == str(tmp_path / "whole")
    assert home(Program("i", ("tool",), "pkg"), found) == ""


def test_a_missing_program_names_the_package_and_grafana_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PLINTH_GRAFANA", raising=False)
    wanted = services_of(parse({"target": "local", "postgres": {"enabled": False}}, source="x"))
    with pytest.raises(UserError, match=r"redis \(`redis-server`\).*apt-get install .*redis-server"):
        locate(wanted)
    _, left_out = locate([service for service in wanted if service.name in ("qdrant", "grafana")])
    assert "put one on PATH" in left_out["grafana"]


def test_a_secret_is_made_once_kept_private_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secrets.json"
    first = kept_secret(path, "a")
    assert kept_secret(path, "a") == first
    assert kept_secret(path, "b") != first
    assert len(first) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == {"a", "b"}


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made by mounting one, which takes root")
def test_a_full_disk_is_a_sentence_and_the_next_run_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        wanted = spec(disk)
        (disk / "filler").write_bytes(b"x" * 200 * 1024)
        with pytest.raises(ProgramFailed, match=r"p: .* cannot be written \(No space left on device\); free the disk"):
            start(wanted, {"big.conf": "x" * 100 * 1024})
        (disk / "filler").unlink()
        assert start(wanted, {"big.conf": "x" * 1024})
        stop(wanted)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
