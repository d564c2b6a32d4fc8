"""Progress display: bars with the time left on a terminal, else one line for each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text


class Progress(Protocol):
    """Receives the progress of a job; called on one thread."""

    def __call__(self, what: str, done: int, total: int, unit: str = "") -> None:
        """`what` names the stage; another name begins a new one. `done` of `total` things
        called `unit`; a total of 0 is unknown."""
        ...


def silent(what: str, done: int, total: int, unit: str = "") -> None:
    """A Progress that shows nothing."""


def count_progress(progress: Progress, what: str, total: int, unit: str) -> Callable[[int], None]:
    """Begin the stage `what`; the function returned takes increments and reports their sum."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total, unit)

    advance(0)
    return advance


@contextmanager
def show_progress(stream: IO[str]) -> Iterator[Progress]:
    """A Progress that writes to `stream`: bars on a terminal, else a line for each ended stage."""
    console = Console(file=stream)
    if console.is_terminal:
        with Bars(*_columns(), console=console) as bars:
            stages = _Bars(bars)
            yield stages
            stages.end()
    else:
        lines = _Lines(stream)
        yield lines
        lines.end()


def _columns() -> list[ProgressColumn]:
    return [
        TextColumn("{task.description}"),
        BarColumn(),
        _CountColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]


class _CountColumn(ProgressColumn):
    """Done of total, with the unit."""

    def render(self, task: Task) -> Text:
        return Text(count_of(int(task.completed), int(task.total or 0), task.fields["unit"]))


def count_of(done: int, total: int, unit: str) -> str:
    """ "1,200/4,000 rows", without the parts that are unknown."""
    if not unit:
        return ""
    return f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}"


class _Bars:
    """A bar for each stage, one below the other."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage = ""

    def __call__(self, what: str, done: int, total: int, unit: str = "") -> None:
        if what != self._stage:
            self.end()
            self._stage = what
            self._task = self._bars.add_task(what, total=total or None, unit=unit)
        self._bars.update(self._task, completed=done, total=total or None)

    def end(self) -> None:
        if self._stage:
            done = self._bars.tasks[self._task].completed
            self._bars.update(self._task, completed=done or 1, total=done or 1)
            self._bars.stop_task(self._task)


class _Lines:
    """A log line for each ended stage: name, count, seconds."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stage = ""

    def __call__(self, what: str, done: int, total: int, unit: str = "") -> None:
        if what != self._stage:
            self.end()
            self._stage, self._begun = what, time.monotonic()
        self._count = count_of(done, total, unit)

    def end(self) -> None:
        if self._stage:
            seconds = time.monotonic() - self._begun
            said = f"{self._stage}: {self._count}{', ' if self._count else ''}{seconds:.1f} s"
            self._stream.write(f"{said}\n")
            self._stream.flush()
