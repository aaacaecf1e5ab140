"""`python -m plinth.backup --config FILE COMMAND`: what the schedule's service and other schedulers run."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

from plinth.backup import drill, look, restore, schedule, show, take
from plinth.backup.config import Config, load_config
from plinth.backup.source import STORES, Wish
from plinth.errors import UserError
from plinth.visible import log_lines, visible

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


def main() -> None:
    """Run one command; exit 0 yes, 1 no, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m plinth.backup")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print JSON on standard output, and progress on stderr")
    parser.add_argument("--snapshot", help="a set by the beginning of its id; the newest otherwise")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        if name == "restore":
            _add_wish(command)
    given = parser.parse_args()
    log_lines()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # What was begun is cleaned up: throw-away instances would outlive this otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        config = load_config(given.config)
        if given.command == "restore":
            _restore(config, _wish(given), sure=given.yes, as_json=given.json)
            code = 0
        else:
            code = _run(config, given.command, given.snapshot, as_json=given.json)
    except UserError as error:
        logging.error("%s", error)
        sys.exit(error.exit_code)
    sys.exit(code)


def say(line: str) -> None:
    """A line of progress."""
    logging.info("%s", line)


def _run(config: Config, command: str, snapshot: str | None, *, as_json: bool) -> int:
    if command == "run":
        taken = take.run(config, say)
        _print(show.taken_lines(taken), show.taken_json(taken), as_json=as_json)
        return 0 if taken.manifest.complete else 1
    if command == "list":
        found = look.sets(config, say)
        _print([show.set_line(each) for each in found], [show.set_json(each) for each in found], as_json=as_json)
        return 0
    if command == "verify":
        verified = look.verify(config, say, snapshot)
        _print(show.verified_lines(verified), show.verified_json(verified), as_json=as_json)
        return 1 if verified.problems else 0
    if command == "drill":
        drilled = drill.run(config, say, snapshot)
        _print(show.drilled_lines(drilled), show.drilled_json(drilled), as_json=as_json)
        return 0 if drilled.result == "ok" else 1
    if command == "check":
        look.check(config, say)
    elif command == "prune":
        look.prune(config, say)
    elif command == "schedule":
        schedule.keep(config, say)
    return 0


def _add_wish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", choices=STORES, action="append", default=[], help="all when absent")
    parser.add_argument("--collection", action="append", default=[], help="a Qdrant collection; may be repeated")
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


def _restore(config: Config, wish: Wish, *, sure: bool, as_json: bool) -> None:
    if wish.replace and not sure:
        raise UserError("--replace puts the backup's data in the place of what is live; add --yes if you mean it.")
    restored = restore.run(config, config, wish, say)
    _print(show.restored_lines(restored, config.name), show.restored_json(restored), as_json=as_json)


def _print(lines: list[str], data: object, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        for line in lines:
            print(visible(line))


main()
