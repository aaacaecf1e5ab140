"""The command `python -m plinth.backup --config FILE COMMAND`, which the backup scheduler and other schedulers run."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

from plinth.backup.config import Config, Stores, load_config
from plinth.backup.restore_source import STORES, Wish
from plinth.backup.session import Say
from plinth.backup.temporary import launcher
from plinth.backup.wait_limits import PATIENCE_S
from plinth.errors import UserError
from plinth.printable import log_lines, visible
from plinth.system import sandbox
from plinth.system.config_file import load

COMMANDS = {
    "run": "make a backup",
    "check": "check the repository and read a part of its data",
    "prune": "let old sets go",
    "list": "the sets of the repository",
    "verify": "read a whole set and compare it with its manifest",
    "drill": "restore a set into throw-away instances and compare",
    "restore": "restore a set into the stores that it came from: all of it, or what is named",
    "schedule": "run backups, checks and drills by schedule until stopped",
}
# Commands that start temporary stores.
STARTING = ("drill", "restore", "schedule")
EVERY = {"verify": "every set", "check": "read all of the data, and not this week's part"}
# A person waits for a list, and a restore does not need the set that is being written now.
WAIT = "how long another run is waited for (3600); a list and a restore begin at once or not at all"
PROGRESS = ("log", "plain", "none")
# Commands that read one set.
OF_A_SET = ("verify", "drill", "restore")
SNAPSHOT = "a set by the beginning of its id; the newest otherwise"


def main() -> None:
    """Run one command. Exit 0 for success, 1 for failure, 2 for wrong use."""
    given = parser().parse_args()
    log_lines()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Clean up what was started: temporary instances would outlive this process otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if given.launcher is not None:
        launcher.use(given.launcher)
    try:
        config = load_config(given.config)
        target = load(given.target, Stores) if given.target else None
        if given.launcher is None and (account := launcher.account()):
            code = launcher.serve(account, config, target, sys.argv[1:])
            sys.exit(code)
        if given.launcher is None:
            launcher.hide(config, given.config.absolute(), target)
            if given.command in STARTING and sandbox.version() == 0:
                logging.warning("Throw-away stores can read what this account reads: there is no Landlock here.")
        if given.command == "restore":
            code = _restore(config, target, given)
        else:
            every = getattr(given, "all", False)
            asked = (given.command, given.snapshot, given.wait)
            code = _run(config, *asked, _say(given.progress), every=every, as_json=given.json)
    except UserError as error:
        if given.progress == "log":
            logging.error("%s", error)
        else:
            print(f"plinth: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m plinth.backup")
    made.add_argument("--config", type=Path, required=True)
    made.add_argument("--json", action="store_true", help="print JSON on standard output, and progress on stderr")
    made.add_argument("--snapshot", help=SNAPSHOT)
    made.add_argument("--progress", choices=PROGRESS, default="log", help="where lines of progress go")
    made.add_argument("--target", type=Path, help="another environment's stores, for a restore into them")
    made.add_argument("--into", help="what the environment is called that a restore goes into")
    made.add_argument("--wait", type=float, default=PATIENCE_S, metavar="SECONDS", help=WAIT)
    made.add_argument("--launcher", type=int, help=argparse.SUPPRESS)
    commands = made.add_subparsers(dest="command", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        if name in OF_A_SET:
            # Accept it after the command too, where `restore --help` lists it.
            command.add_argument("--snapshot", default=argparse.SUPPRESS, help=SNAPSHOT)
        if name == "restore":
            _add_wish(command)
        if name in EVERY:
            command.add_argument("--all", action="store_true", help=EVERY[name])
    return made


def _say(progress: str) -> Say:
    if progress == "none":
        return lambda _line: None
    if progress == "plain":
        return lambda line: print(f"  {visible(line)}", flush=True)
    return lambda line: logging.info("%s", line)


def _run(
    config: Config, command: str, snapshot: str | None, wait_s: float, say: Say, *, every: bool, as_json: bool
) -> int:
    # Not imported where root only starts another process: they are slow to import, and root does not need them.
    from plinth.backup import drill, inspection, output, scheduler
    from plinth.backup import run as backup_run

    if command == "run":
        taken = backup_run.run(config, say, wait_s=wait_s)
        _print(output.taken_lines(taken), output.taken_json(taken), as_json=as_json)
        return 0 if taken.manifest.complete else 1
    if command == "list":
        found = inspection.sets(config, say)
        lines = [output.set_line(each) for each in found] or ["No set yet; `plinth backup run` makes one."]
        _print(lines, [output.set_json(each) for each in found], as_json=as_json)
        return 0
    if command == "verify":
        verified = (
            inspection.verify_all(config, say, wait_s=wait_s)
            if every
            else [inspection.verify(config, say, snapshot, wait_s=wait_s)]
        )
        lines = [line for each in verified for line in output.verified_lines(each)] or ["No set yet."]
        documents = [output.verified_json(each) for each in verified]
        _print(lines, documents if every else documents[0], as_json=as_json)
        return 1 if any(each.problems for each in verified) else 0
    if command == "drill":
        drilled = drill.run(config, say, snapshot, wait_s=wait_s)
        _print(output.drilled_lines(drilled), output.drilled_json(drilled), as_json=as_json)
        return 0 if drilled.result == "ok" else 1
    if command == "check":
        checked = inspection.check(config, say, wait_s=wait_s, every=every)
        _print(output.checked_lines(checked), output.checked_json(checked), as_json=as_json)
    elif command == "prune":
        inspection.prune(config, say, wait_s=wait_s)
    elif command == "schedule":
        scheduler.keep(config, say)
    return 0


def _add_wish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", choices=STORES, action="append", default=[], help="all when absent")
    parser.add_argument(
        "--collection", action="append", default=[], help="a Qdrant collection or an alias; may be repeated"
    )
    parser.add_argument("--database", action="append", default=[], help="a Postgres database; may be repeated")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--replace", action="store_true", help="restore over what is live, which needs --yes")
    where.add_argument("--beside", action="store_true", help="restore under new names, beside what is live")
    parser.add_argument("--incomplete", action="store_true", help="take a set that lacks a part")
    parser.add_argument("--yes", action="store_true", help="that --replace is meant: nothing is asked here")


def _wish(given: argparse.Namespace) -> Wish:
    return Wish(
        snapshot=given.snapshot,
        stores=tuple(given.store),
        collections=tuple(given.collection),
        databases=tuple(given.database),
        replace=given.replace,
        beside=given.beside,
        incomplete=given.incomplete,
    )


def _restore(config: Config, target: Stores | None, given: argparse.Namespace) -> int:
    from plinth.backup import output, restore

    if given.replace and not given.yes:
        raise UserError("--replace puts the backup's data in the place of what is live; add --yes if you mean it.")
    restored = restore.run(config, target or config, _wish(given), _say(given.progress))
    lines = output.restored_lines(restored, given.into or config.name)
    _print(lines, output.restored_json(restored), as_json=given.json)
    return 0


def _print(lines: list[str], data: object, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        for line in lines:
            print(visible(line))


if __name__ == "__main__":
    main()
