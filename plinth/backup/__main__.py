"""`python -m plinth.backup --config FILE COMMAND`: what the schedule's service and other schedulers run."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

from plinth.backup import drill, look, schedule, show, take
from plinth.backup.config import Config, load_config
from plinth.errors import UserError

COMMANDS = {
    "run": "make a backup",
    "check": "check the repository and read a part of its data",
    "prune": "let old sets go",
    "list": "the sets of the repository",
    "verify": "read a whole set and compare it with its manifest",
    "drill": "restore a set into throw-away instances and compare",
    "schedule": "run backups, checks and drills by schedule until stopped",
}


def main() -> None:
    """Run one command; exit 0 yes, 1 no, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m plinth.backup")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--json", action="store_true", help="print JSON on standard output, and progress on stderr")
    parser.add_argument("--snapshot", help="a set by the beginning of its id; the newest otherwise")
    parser.add_argument(
        "command", choices=COMMANDS, help="; ".join(f"{name}: {what}" for name, what in COMMANDS.items())
    )
    given = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # What was begun is cleaned up: throw-away instances would outlive this otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = _run(load_config(given.config), given.command, given.snapshot, as_json=given.json)
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


def _print(lines: list[str], data: object, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        for line in lines:
            print(line)


main()
