"""Run `python -m plinth.load`: the load gate in Plinth's image, next to the stores.

The job is in PLINTH_LOAD, and the report is the last lines of the output (:mod:`plinth.load.remote_run`). The exit
codes are the gate's: 0 pass, 1 fail, 3 void or no verdict.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import ValidationError

import plinth
from plinth.errors import UserError
from plinth.load.gate import Server, run
from plinth.load.remote_run import VARIABLE, Job, refusal_lines, report_lines
from plinth.load.report import Report
from plinth.qdrant.client import QdrantError
from plinth.system.managed_process import terminable
from plinth.system.secret_file import read_secret

LOCUSTFILE = Path(plinth.__file__).parent.parent / "load" / "locustfile.py"


def main() -> None:
    """Run one job."""
    try:
        # A requested stop unwinds the stack: the run's collection is dropped, and its workers are stopped.
        with terminable():
            report = carry_out(_job())
    except UserError as error:
        # Only a report is a verdict: an error of the measurement is not a failure of the server.
        exit_code = 2 if error.exit_code == 2 else 3
        sentence = f"No verdict: {error}" if isinstance(error, QdrantError) else str(error)
        _print(*refusal_lines(UserError(sentence, exit_code=exit_code)))
        sys.exit(exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    _print(*report_lines(report))
    sys.exit(report.verdict.exit_code)


def carry_out(job: Job) -> Report:
    """Measure and judge. Nothing is cached: the image has its own data set, and others are generated."""
    return run(
        Server(job.url, _read(job.api_key_file), job.grpc, _read(job.ca_file)),
        job.profile,
        job.slo,
        job.shipped,
        protocol=job.protocol,
        cache=None,
        locustfile=LOCUSTFILE,
        on_progress=_print,
        keep=job.keep,
    )


def _job() -> Job:
    try:
        return Job.model_validate_json(os.environ[VARIABLE])
    except KeyError:
        raise UserError(f"{VARIABLE} is not set; `plinth load ENV` starts this.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"Plinth's image does not know this run ({key}: {first['msg']}): it is of another version than this "
            "installation. `plinth images build` makes it anew; push it where a registry has it.",
            exit_code=3,
        ) from None


def _read(path: Path | None) -> str | None:
    return read_secret(path) if path else None


def _print(*lines: str) -> None:
    for text in lines:
        print(text, flush=True)


if __name__ == "__main__":
    main()
