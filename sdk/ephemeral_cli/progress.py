"""Progress of long work: bars on a terminal, plain lines elsewhere. Everything goes to stderr; results go to stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL_SECONDS = 5.0


class Step:
    """One piece of work under way. ``update`` may be called as often as one likes."""

    def update(self, done: float | None = None, total: float | None = None, note: str = "") -> None:
        """``done`` of ``total`` (any unit); ``note`` says what is being worked on now."""


class _BarStep(Step):
    def __init__(self, progress: Progress, what: str):
        self._progress, self._what = progress, what
        self._task = progress.add_task(what, total=None)

    def update(self, done: float | None = None, total: float | None = None, note: str = "") -> None:
        description = f"{self._what}: {note}" if note else self._what
        self._progress.update(self._task, completed=done, total=total, description=description)


class _LineStep(Step):
    def __init__(self, console: Console, what: str):
        self._console, self._what = console, what
        self._last = time.monotonic()

    def update(self, done: float | None = None, total: float | None = None, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_INTERVAL_SECONDS:
            return
        self._last = now
        count = f" {done:,.0f}/{total:,.0f}" if done is not None and total else ""
        self._console.print(f"  {self._what}{count}{': ' + note if note else ''}", highlight=False, markup=False)


class Reporter:
    """Says what is being done. ``quiet`` says nothing at all."""

    def __init__(self, console: Console | None = None, quiet: bool = False):
        self.console = console or Console(stderr=True, soft_wrap=True, quiet=quiet)

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Work that may take longer than two seconds; prints how long it took when it is over."""
        started = time.monotonic()
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=self.console, transient=True) as progress:
                yield _BarStep(progress, what)
        else:
            self.say(f"{what} …")
            yield _LineStep(self.console, what)
        self.say(f"{what}: done ({time.monotonic() - started:.1f} s)")
