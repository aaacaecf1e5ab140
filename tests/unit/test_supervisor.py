"""supervisord of an environment: who may answer for it, what it hands down, and that `down` leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from plinth.targets.local import strays
from plinth.targets.local.control import Control
from plinth.targets.local.process import ProcessSpec, running, start, stop
from plinth.targets.local.supervisor import ProgramFailed, Supervisor
from tests.accounts import as_account, needs_accounts
from tests.waiting import wait_for

# Answers every question as supervisord does, and writes down what it was asked.
IMPOSTOR = """
import pathlib, socket, sys, xmlrpc.client
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
pathlib.Path(sys.argv[2]).write_text("ready")
while True:
    connection, _ = listener.accept()
    with open(sys.argv[2], "ab") as asked:
        asked.write(connection.recv(65536))
    body = xmlrpc.client.dumps((1,), methodresponse=True)
    head = f"HTTP/1.0 200 OK\\r\\nContent-Type: text/xml\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    connection.sendall((head + body).encode())
    connection.close()
"""
LINGERS = """
import os, signal, sys, time
if os.fork():
    time.sleep(1000)
os.setsid()
os.chdir("/")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(1000)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plinth-supervisor-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


def spec(place: Path, *argv: str, **values: object) -> ProcessSpec:
    run = place / "run"
    return ProcessSpec("p", str(run), str(run / "config" / "p"), argv or ("/bin/sleep", "1000"), **values)  # type: ignore[arg-type]


def impostor(name: str, place: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A daemon of another account, which answers at the place's control socket."""
    asked = place / "asked"
    asked.touch()
    asked.chmod(0o666)
    run = place / "run"
    command = f'exec /usr/bin/python3 -c "$1" {run / Control.NAME} {asked}'
    process = subprocess.Popen(
        ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", "--", "sh", "-c", command, "-", IMPOSTOR],
        cwd="/",
    )
    wait_for(lambda: "ready" in asked.read_text())
    asked.write_text("")
    return process, asked


@needs_accounts
@pytest.mark.parametrize("closed_since", [True, False])
def test_a_daemon_of_another_account_is_asked_nothing_and_told_nothing(place: Path, closed_since: bool) -> None:
    """M9: a stranger who could once write where the socket is answers in the daemon's name."""
    run = place / "run"
    run.mkdir()
    run.chmod(0o777)
    process, asked = impostor("plinth-redis", place)
    try:
        if closed_since:
            run.chmod(0o711)
        assert Supervisor(run).pid() is None
        assert running(spec(place)) is None
        started = start(spec(place), {})
        assert psutil.pid_exists(started.pid)
        stop(spec(place))
        assert asked.read_text() == ""
    finally:
        process.kill()
        process.wait()


@needs_accounts
def test_who_listens_is_looked_at_where_the_socket_is_ours(place: Path) -> None:
    """A socket that was given to root is still listened at by whoever made it."""
    run = place / "run"
    run.mkdir()
    run.chmod(0o777)
    process, asked = impostor("plinth-redis", place)
    try:
        run.chmod(0o711)
        os.chown(run / Control.NAME, 0, 0)
        assert Supervisor(run).pid() is None
        assert asked.read_text() == ""
    finally:
        process.kill()
        process.wait()


def test_the_socket_is_in_the_run_directory_however_deep(place: Path) -> None:
    deep = place / ("d" * 90) / ("e f" * 30)
    before = {path.name for path in Path(tempfile.gettempdir()).iterdir()}
    start(spec(deep), {})
    try:
        assert stat.S_IMODE((deep / "run" / Control.NAME).stat().st_mode) == 0o600
        assert not {
            name
            for name in {path.name for path in Path(tempfile.gettempdir()).iterdir()} - before
            if name.startswith("plinth-0")
        }
    finally:
        stop(spec(deep))
    assert not (deep / "run").exists()


ODD_PATHS = {
    "blanks and comments": "a b #c ;d",
    "what supervisord expands": "50% %(here)s %(ENV_HOME)s%%",
    "quotes and backslashes": 'it\'s "q" \\ back',
    "a pattern": "[ab]*?{c,d}",
    "what a shell expands": "$HOME `id` $(id) ~ &|<>!",
    "assignments": "a=b,c:d",
    "other scripts": "Prüfung-データ-🙂",
}


@pytest.mark.parametrize("name", ODD_PATHS.values(), ids=ODD_PATHS)
def test_a_path_is_a_path_whatever_is_in_it(place: Path, name: str) -> None:
    """F15: and so are the arguments and the variables that name it, and the program itself."""
    odd = place / name
    (odd / "bin").mkdir(parents=True)
    program = odd / "bin" / f"p {name}"
    program.symlink_to("/bin/sleep")
    volume = str(odd / "data" / "v")
    wanted = spec(
        odd, str(program), "1000", "0", volumes=(volume,), environment={"NAMED": str(odd), "PLAIN": f" {name} "}
    )
    started = start(wanted, {"f.conf": "x"})
    try:
        process = psutil.Process(started.pid)
        assert process.cmdline() == [str(program), "1000", "0"]
        environment = process.environ()
        assert (environment["NAMED"], environment["PLAIN"], environment["HOME"]) == (str(odd), f" {name} ", volume)
        assert Path(process.cwd()) == odd / "run" / "config" / "p"
        # The daemon finds it again, and what it prints.
        assert running(wanted) == started
        assert (odd / "run" / "logs" / "p.log").exists()
    finally:
        stop(wanted)
    assert not (odd / "run").exists()


@pytest.mark.parametrize("first", ["/tmp", "/var/tmp"])
def test_the_control_socket_is_the_same_whatever_the_place_for_temporary_files(
    place: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """F14: another TMPDIR started a second daemon over the same data."""
    deep = place / ("d" * 100)
    second = ProcessSpec("q", str(deep / "run"), f"{deep}/run/config/q", ("/bin/sleep", "999"))
    monkeypatch.setenv("TMPDIR", first)
    tempfile.tempdir = None
    start(spec(deep), {})
    daemon = Supervisor(deep / "run").pid()
    try:
        monkeypatch.setenv("TMPDIR", str(place))
        tempfile.tempdir = None
        start(second, {})
        assert Supervisor(deep / "run").pid() == daemon
        assert running(spec(deep)) is not None
    finally:
        Supervisor(deep / "run").clear()
        monkeypatch.undo()
        tempfile.tempdir = None
    assert Supervisor(deep / "run").strays() == []


@pytest.mark.parametrize("variables", [None, {}, {"PATH": "/bin"}], ids=["as this", "none", "a path"])
@pytest.mark.parametrize("directory", [".", "data", "data/v", "run/logs", "run/config/p"])
def test_what_is_not_plinths_is_not_ended(place: Path, directory: str, variables: dict[str, str] | None) -> None:
    """F24: a copy job without a terminal, at work over the data, was taken for a stray."""
    for each in ("data/v", "run/logs", "run/config/p"):
        (place / each).mkdir(parents=True, exist_ok=True)
    other = subprocess.Popen(["/bin/sleep", "1000"], cwd=place / directory, env=variables, start_new_session=True)
    try:
        assert Supervisor(place / "run").strays() == []
    finally:
        other.kill()
        other.wait()


def test_a_program_gets_nothing_of_who_starts_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H4: neither the daemon nor its programs."""
    for name in (
        "PULUMI_CONFIG_PASSPHRASE",
        "AWS_SECRET_ACCESS_KEY",
        "HTTPS_PROXY",
        "PYTHONPATH",
        "LD_PRELOAD",
        "OPERATOR_TOKEN",
    ):
        monkeypatch.setenv(name, "/of-the-operator")
    volume = str(place / "data" / "v")
    wanted = spec(place, volumes=(volume,), environment={"OWN": "named"})
    started = start(wanted, {})
    try:
        daemon = Supervisor(place / "run").pid()
        assert daemon is not None
        for pid in (started.pid, daemon):
            environment = psutil.Process(pid).environ()
            assert "/of-the-operator" not in environment.values()
            supervisors = {name for name in environment if name.startswith("SUPERVISOR_")}
            assert set(environment) - supervisors - {"OWN"} == {
                "PATH",
                "HOME",
                "LANG",
                "LC_ALL",
                "TZ",
                "PYTHONSAFEPATH",
                strays.ENVIRONMENT,
            }
        assert psutil.Process(started.pid).environ()["OWN"] == "named"
        assert psutil.Process(started.pid).environ()["HOME"] == volume
    finally:
        stop(wanted)


def test_a_module_in_the_directory_that_a_program_works_in_is_not_imported(place: Path) -> None:
    wanted = spec(place, sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0")
    start(wanted, {"http/server.py": "raise SystemExit('not this one')", "http/__init__.py": ""})
    stop(wanted)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_the_daemons_files_are_closed_whatever_the_umask(place: Path, mask: int) -> None:
    """M1: what anybody may write there the daemon runs as root."""
    before = os.umask(mask)
    program = (sys.executable, "-c", "import os, time; open('mask', 'w').write(oct(os.umask(0))); time.sleep(1000)")
    volume = place / "data" / "v"
    wanted = spec(
        place,
        "/bin/sh",
        "-c",
        f'cd {volume} && exec {shlex.quote(program[0])} -c "$0"',
        program[2],
        volumes=(str(volume),),
    )
    start(wanted, {"p.conf": "secret"})
    try:
        wait_for(lambda: (volume / "mask").exists() and (volume / "mask").read_text() == "0o77")
        run = place / "run"
        assert [path for path in run.rglob("*") if path.lstat().st_mode & 0o022] == []
        assert stat.S_IMODE((run / "programs").stat().st_mode) == 0o700
        assert stat.S_IMODE((run / "programs" / "p.conf").stat().st_mode) == 0o600
        assert stat.S_IMODE((run / "logs").stat().st_mode) & 0o007 == 0
    finally:
        stop(wanted)
        os.umask(before)


@needs_accounts
def test_what_another_put_among_the_programs_is_not_run(place: Path) -> None:
    """M1 as it was: an environment whose directories were open to all, deployed again."""
    programs = place / "run" / "programs"
    programs.mkdir(parents=True)
    for directory in (programs.parent, programs):
        directory.chmod(0o777)
    as_account("plinth-redis", f"printf '[program:zz]\\ncommand=/bin/touch {place}/owned\\n' >{programs}/zz.conf")
    assert (programs / "zz.conf").exists()
    wanted = spec(place)
    start(wanted, {})
    try:
        assert not (programs / "zz.conf").exists()
        assert not (place / "owned").exists()
    finally:
        stop(wanted)


@needs_accounts
def test_what_a_program_prints_is_read_by_the_agents_account_alone(place: Path) -> None:
    wanted = spec(place, "/bin/sh", "-c", "echo printed; exec sleep 1000")
    start(wanted, {})
    try:
        log = place / "run" / "logs" / "p.log"
        wait_for(lambda: "printed" in log.read_text())
        assert as_account("plinth-fluent-bit", f"ls {log.parent} && cat {log}").stdout.endswith("printed\n")
        assert as_account("plinth-fluent-bit", f"echo x >>{log} || touch {log.parent}/x").returncode
        assert as_account("plinth-loki", f"cat {log} || ls {log.parent}").returncode
    finally:
        stop(wanted)


def test_down_ends_what_left_its_programs_group_and_its_directory(place: Path) -> None:
    left = place / "left"
    start(spec(place, sys.executable, f"{place}/run/config/p/lingers.py", str(left)), {"lingers.py": LINGERS})
    wait_for(lambda: left.exists() and left.read_text() != "")
    pid = int(left.read_text())
    Supervisor(place / "run").clear()
    wait_for(lambda: gone(pid))
    assert not (place / "run").exists()


def test_down_ends_a_daemon_that_works_elsewhere_and_whose_socket_is_gone(place: Path) -> None:
    """M2 as it was: the daemon of an earlier Plinth works where its caller did."""
    start(spec(place), {})
    run = place / "run"
    daemon = Supervisor(run).pid()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    (run / Control.NAME).unlink(missing_ok=True)
    for stray in Supervisor(run).strays():
        stray.kill()
    config = (
        (run / "supervisord.conf")
        .read_text()
        .replace("/proc/self/cwd/supervisor.sock", str(place / "elsewhere.sock"))
        .replace("/proc/self/cwd", str(run))
        .replace("=logs", f"={run}/logs")
        .replace("=supervisord.pid", f"={run}/supervisord.pid")
    )
    (run / "supervisord.conf").write_text(config)
    program = run / "programs" / "p.conf"
    program.write_text(program.read_text().replace("=logs", f"={run}/logs").replace("=config", f"={run}/config"))
    subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(run / "supervisord.conf")], cwd="/", check=True
    )
    wait_for(lambda: len(Supervisor(run).strays()) >= 2)
    everything = Supervisor(run).strays()
    Supervisor(run).clear()
    assert [process for process in everything if not gone(process.pid)] == []
    assert not run.exists()


def test_down_names_what_it_cannot_end_and_leaves_the_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "DEADLINE_S", 0.2)
    started = start(spec(place), {})
    run = place / "run"
    daemon = Supervisor(run).pid()
    assert daemon is not None

    def refused(*_: object) -> None:
        raise psutil.AccessDenied(daemon)

    with monkeypatch.context() as patched:
        for call in ("terminate", "kill"):
            patched.setattr(psutil.Process, call, refused)
        patched.setattr(Supervisor, "_end_daemon", lambda _: None)
        expected = rf"These processes of {place} do not end: .*{started.pid} \(sleep of [\w-]+\)"
        with pytest.raises(ProgramFailed, match=expected) as refused:
            Supervisor(run).clear()
        # As `plinth down` ends with it.
        assert refused.value.exit_code == 1
        assert run.exists()
    Supervisor(run).clear()
    assert gone(started.pid)


def test_who_looks_around_in_the_place_is_no_stray(place: Path) -> None:
    with socket.socket():
        assert os.getpid() not in [process.pid for process in Supervisor(place / "run").strays()]
    before = Path.cwd()
    os.chdir(place)
    try:
        assert Supervisor(place / "run").strays() == []
    finally:
        os.chdir(before)


def test_a_daemon_of_other_settings_is_replaced_and_its_programs_come_again(place: Path) -> None:
    first, second = spec(place), ProcessSpec("q", str(place / "run"), f"{place}/run/config/q", ("/bin/sleep", "999"))
    start(first, {})
    try:
        supervisor = Supervisor(place / "run")
        daemon = supervisor.pid()
        supervisor.config.write_text(supervisor.config.read_text() + "# an earlier one\n")
        start(second, {})
        assert supervisor.pid() not in (None, daemon)
        wait_for(lambda: running(first) is not None)
    finally:
        stop(first)
        stop(second)


def gone(pid: int) -> bool:
    for _ in range(40):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
