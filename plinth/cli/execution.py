"""`plinth.backup` run where an environment's stores are: in its container, or in a Job made from its CronJob."""

from __future__ import annotations

from collections.abc import Sequence

from plinth.cli.common import progress_console
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.services.backup import container_of
from plinth.settings import TargetName
from plinth.system.console import line

# Its pods have every store's secrets, and the claim of the repository.
CRONJOB = "backup-run"


def run_in_stack(stack: Stack, command: str, arguments: Sequence[str], *, json: bool) -> int:
    """Run a command of `python -m plinth.backup`, its output as it comes; its exit status."""
    if stack.settings.target is TargetName.kubernetes:
        return _in_a_job(stack, command, arguments, json=json)
    return _in_the_container(stack, arguments)


def json_part(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The JSON document among a pod's lines, which are those of both its outputs, and the other lines."""
    first = next((i for i, line in enumerate(lines) if line in ("{", "[", "{}", "[]")), len(lines))
    closing = {"{": "}", "[": "]"}.get(lines[first]) if first < len(lines) else None
    last = next((i for i in range(first, len(lines)) if closing in (None, lines[i])), len(lines) - 1)
    return list(lines[first : last + 1]), [*lines[:first], *lines[last + 1 :]]


def _in_the_container(stack: Stack, arguments: Sequence[str]) -> int:
    # What a target needs takes long to import, which the others do not pay.
    from plinth.targets.docker.engine_api import Daemon
    from plinth.targets.docker.execution import execute
    from plinth.targets.docker.naming import CONFIG

    container = container_of(stack.env)
    argv = ["python3", "-m", "plinth.backup", "--config", f"{CONFIG}/config.yaml", *arguments]
    with Daemon(stack.settings.docker.host) as daemon:
        state = next((each.state for each in daemon.containers(stack.env) if each.name == container), "not there")
        if state != "running":
            raise UserError(
                f"The container {container} is {state}, and backups are made in it; `plinth up {stack.env}` starts it.",
                exit_code=1,
            )
        return execute(daemon, container, argv, _print)


def _in_a_job(stack: Stack, command: str, arguments: Sequence[str], *, json: bool) -> int:
    from plinth.kubernetes.jobs import Jobs, job_of

    jobs = Jobs(stack.cluster)
    cronjob = jobs.cronjob(CRONJOB)
    if cronjob is None:
        raise UserError(
            f"The namespace {stack.settings.kubernetes.namespace} has no CronJob {CRONJOB}; `plinth up {stack.env}` "
            "makes it again.",
            exit_code=1,
        )
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    own = container["command"]
    job = job_of(cronjob, f"backup-{command}-by-hand", [*own[: own.index("--config") + 2], *arguments])
    console = progress_console(json=json)

    def on_progress(message: str) -> None:
        console.print(line("  ", message))

    if not json:
        return jobs.run(job, _print, on_progress)
    lines: list[str] = []
    code = jobs.run(job, lambda text, _is_error: lines.append(text), on_progress)
    document, others = json_part(lines)
    for text in others:
        _print(text, True)
    for text in document:
        _print(text, False)
    return code


def _print(text: str, is_error: bool) -> None:
    progress_console(json=is_error).print(line(text))
