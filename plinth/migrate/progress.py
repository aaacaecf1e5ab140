"""The progress of a migration: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from plinth.migrate import checkpoint
from plinth.migrate.migration import Told

LINE_EVERY_S = 5.0


@contextmanager
def telling(console: Console) -> Iterator[Told]:
    """Yield the progress callbacks, which work within the block."""
    if console.is_terminal:
        with _bar(console) as told:
            yield told
    else:
        yield _lines(console)


@contextmanager
def _bar(console: Console) -> Iterator[Told]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, TextColumn("{task.fields[more]}", markup=False), console=console, transient=True
    ) as progress:
        copying = progress.add_task("copying", total=None, visible=False, more="")
        comparing = progress.add_task("comparing", total=None, visible=False, more="")

        def copied(now: checkpoint.Progress, rows: int) -> None:
            more = f"{now.rejected} rejected" if now.rejected else ""
            progress.update(copying, completed=now.read, total=rows, visible=True, more=more)

        def compared(read: int, rows: int) -> None:
            progress.update(comparing, completed=read, total=rows, visible=True)

        yield Told(copied, compared, lambda words: progress.console.print(words))


def _lines(console: Console) -> Told:
    said = began = time.monotonic()

    def say(words: str, *, last: bool) -> None:
        nonlocal said
        now = time.monotonic()
        if last or now - said > LINE_EVERY_S:
            console.print(f"{now - began:6.0f} s  {words}")
            said = now

    def copied(now: checkpoint.Progress, rows: int) -> None:
        say(f"copied {now.read} of {rows} rows, {now.rejected} rejected", last=now.read == rows)

    def compared(read: int, rows: int) -> None:
        say(f"compared {read} of {rows} rows", last=read == rows)

    return Told(copied, compared, lambda words: say(words, last=True))
