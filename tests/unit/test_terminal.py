"""Names and words of others on the terminal and in logs: every character is shown, and none is obeyed."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.automation import DiagnosticEvent, EngineEvent, OpType
from rich.table import Table

from plinth.backup import __main__ as backup
from plinth.backup import output
from plinth.backup.freshness import BackupStatus
from plinth.backup.inspection import Set, Verified
from plinth.backup.manifest import Manifest
from plinth.backup.restore import Restored
from plinth.backup.run import Taken
from plinth.cli import collections, load, main, migrate, status, tune
from plinth.cli.common import print_json
from plinth.deployment.progress import Progress
from plinth.errors import UserError
from plinth.health.status import Result, Status
from plinth.load.verdict import Verdict
from plinth.migrate.dry_run import DryRun
from plinth.migrate.progress import telling
from plinth.qdrant.plan import Change, CreateIndex, DropIndex, Plan, Refusal, SwitchAliases, UpdateCollection
from plinth.status_files.backup_runs import Run, State
from plinth.system.console import console
from tests.conftest import ROOT

# As they are called, and as they are shown.
NAMES = {
    "mk[red]x": "mk[red]x",
    "[/x]": "[/x]",
    "[link=http://evil.test]here[/link]": "[link=http://evil.test]here[/link]",
    ":warning:": ":warning:",
    "\x1b[2Jx": r"\x1b[2Jx",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\nb": r"a\nb",
    "a\rb\x08": r"a\rb\x08",
    "\u202egpj.exe": r"\u202egpj.exe",
    "\u2066x\u2069": r"\u2066x\u2069",
    "\x9b31mx": r"\x9b31mx",
    "a\u2028b\u2029": r"a\u2028b\u2029",
    "a\u200bb\u00a0": r"a\u200bb\xa0",
    "\ud800": r"\ud800",
    "é 名前": "é 名前",
}
Show = Callable[[str], None]


def collections_diff(name: str) -> None:
    refusal = Refusal(name, Change(name, "a", "b"), f"{name} is refused.")
    steps = (
        UpdateCollection(name, {}, (Change(name, name, name),)),
        CreateIndex(name, name, {"type": name}),
        DropIndex(name, name),
        SwitchAliases({name: name}, (name,)),
    )
    collections._show(Plan(steps, (refusal,), (name,)), 1, "t")


def status_table(name: str) -> None:
    status._show(Status(name, {name: Result(True, False, False, 1.0, name), "x": Result(True, True, False, url=name)}))
    status._show_peers([{"peer": name, "id": 1, "leader": True, "replicas": 1, "not_active": [name]}])


def backup_state(name: str) -> None:
    run = Run(attempted_at=0, result="failed", duration_s=1, detail=name)
    status._show_backups(BackupStatus(State(backup=run, check=run, drill=run), name))


def _manifest(name: str) -> Manifest:
    return Manifest(
        name=name,
        plinth="1",
        began_at=0,
        ended_at=0,
        stores={name: "failed"},
        failures=(f"{name} is lacking.",),
        not_taken={name: name},
        pieces=(),
    )


def _snapshot(name: str) -> Any:
    return SimpleNamespace(id=name, short=name, at=0.0, complete=False)


def _printed(lines: list[str]) -> None:
    backup._print(lines, None, as_json=False)


def backup_run(name: str) -> None:
    backup._say("plain")(f"taking {name}")
    _printed(output.taken_lines(Taken("0" * 64, _manifest(name), 1, 1.0)))


def backup_list(name: str) -> None:
    _printed([output.set_line(Set(_snapshot(name), _manifest(name)))])


def backup_verify(name: str) -> None:
    backup._print(
        output.verified_lines(Verified(_snapshot(name), _manifest(name), (f"{name} is missing",))), None, as_json=False
    )


def backup_drill(name: str) -> None:
    drilled: Any = SimpleNamespace(
        snapshot=_snapshot(name),
        manifest=_manifest(name),
        result="failed",
        told={name: (name,)},
        problems={name: (name,)},
        seconds={name: 1.0},
        unproven={},
    )
    _printed(output.drilled_lines(drilled))


def backup_restore(name: str) -> None:
    backup._print(
        output.restored_lines(Restored(_snapshot(name), _manifest(name), [name], {name: 1.0}), name),
        None,
        as_json=False,
    )


def migration(name: str) -> None:
    migrate._show(
        {
            **dict.fromkeys(("source", "collection", "to", "digest_source", "digest_target"), name),
            **dict.fromkeys(("rows", "points", "equal", "missing", "different", "rejected", "other_points"), 1),
            "queries": 0,
            "examples": [name],
            "reasons": [name],
            "left_out": {name: name},
            "as_text": {name: 1},
            "verdict": "gap",
            "changed_since_copied": True,
        },
        json=False,
    )
    with telling(console) as progress:
        progress.words(name)


def migration_plan(name: str) -> None:
    shown = DryRun(
        name,
        name,
        True,
        1,
        1,
        {name: cast(Any, name)},
        {name: name},
        name,
        1,
        1,
        (name,),
        (name,),
        {name: name},
        (name,),
    )
    console.print(*shown.lines(), sep="\n")


def load_gate(name: str) -> None:
    load._say(name)
    load._teller(False)(name)
    tune._teller(False)(name)
    load._conclude(Verdict("fail", (name,)))


def preview(name: str) -> None:
    progress = Progress(console, preview=True)
    metadata: Any = SimpleNamespace(
        op=OpType.CREATE, urn=f"urn:pulumi:t::p::a:b:Collection::{name}", type="a:b:Collection"
    )
    progress.on_event(cast(EngineEvent, SimpleNamespace(resource_pre_event=SimpleNamespace(metadata=metadata))))


def failed_up(name: str) -> None:
    progress = Progress(console)
    raised = f"Traceback (most recent call last):\nplinth.errors.UserError: {UserError(f'{name} is wrong.')}"
    event = DiagnosticEvent(message=raised, color="never", severity="error")
    progress.on_event(EngineEvent(sequence=1, timestamp=1, diagnostic_event=event))
    for failure in progress.failures:
        console.print(failure)


def tables(name: str) -> None:
    table = Table(title=name, caption=name)
    table.add_column(name, footer=name)
    table.add_row(name)
    console.print(table)


COMMANDS = (
    *(collections_diff, status_table, backup_state, backup_run, backup_list, backup_verify, backup_drill),
    *(backup_restore, migration, migration_plan, load_gate, preview, failed_up, tables),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_shown_and_not_obeyed(command: Show, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command("plain")
    lines = capsys.readouterr().out.count("\n")
    command(name)
    shown = capsys.readouterr().out
    assert NAMES[name] in shown
    assert _only_printable(shown)
    assert shown.count("\n") == lines


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_an_error_too(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UserError(f"Qdrant says {name}; look.", exit_code=1)

    monkeypatch.setattr("plinth.cli.app", refuse)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"plinth: Qdrant says {NAMES[name]}; look.\n"


def test_a_crash_controls_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from plinth.printable import show_crash

    try:
        raise ValueError("a\x1b[2J\x9b1m")
    except ValueError as error:
        show_crash(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.endswith("ValueError: a\\x1b[2J\\x9b1m\n")
    assert _only_printable(said)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_json_stays_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({name: [name]})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {name: [name]}
    assert _only_printable(shown)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_daemons_log_has_one_line_for_each_record(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with _logging() as log:
        log.warning("collection %s is gone", name)
        try:
            raise ValueError(f"{name}\n2026-01-01 00:00:00,000 INFO all is well")
        except ValueError:
            log.exception("%s failed", name)
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert f"WARNING collection {NAMES[name]} is gone" in lines[0]
    assert f"ERROR {NAMES[name]} failed" in lines[1]
    assert all(line.startswith("    ") for line in lines[2:])
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\x9b1m", "\u202ex"], ids=ascii)
def test_what_the_runbooks_show_of_others_is_visible(name: str, tmp_path: Path) -> None:
    words = (ROOT / "monitoring" / "runbooks" / "shell.sh").read_text()
    functions = words[words.index("# Keys and passwords") :]
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "x.log").write_text(f"{name}\n")
    done = subprocess.run(
        ["bash", "-c", f"{functions}\nPLACE=$PWD; logs x"],
        cwd=tmp_path,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "".join(f"{NAMES.get(line, line)}\n" for line in _shown(name).split("\n"))


@given(st.text())
def test_what_is_visible_is_printable_and_stays_so(text: str) -> None:
    from plinth.printable import visible

    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert shown == text or not text.isprintable()


def test_no_command_makes_a_console_of_its_own() -> None:
    made = ("Console(", "typer.echo(", "typer.secho(", "from rich import print", "from_markup", "rich.print(")
    allowed = {"plinth/system/console.py": "Console(", "plinth/cli/common.py": "typer.echo("}
    named = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in (ROOT / "plinth").rglob("*.py")
        for word in made
        if word in path.read_text().replace("class Terminal(Console)", "")
        and allowed.get(str(path.relative_to(ROOT))) != word
    }
    assert named == set()


def _shown(name: str) -> str:
    return "\n".join(
        "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line) for line in name.split("\n")
    )


def _only_printable(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@contextmanager
def _logging() -> Iterator[logging.Logger]:
    from plinth.printable import log_lines

    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers[:] = []
    try:
        log_lines()
        yield logging.getLogger("plinth.test")
    finally:
        root.handlers[:] = before
