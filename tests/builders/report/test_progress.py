"""Progress: numbers that move within a stage, a line a stage for logs, bars for people."""

from __future__ import annotations

import io
import re

import pytest

from index_builders.report.progress import count_of, count_progress, show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_for_each_stage_that_ended() -> None:
    """With how much was done and the seconds it took; however often it was told."""
    log = io.StringIO()
    with show_progress(log) as progress:
        for done in (0, 1500, 3000):
            progress("reading the bank", done, 3000, "entries")
        progress("training", 0, 0)
        progress("filling", 10, 20, "rows")
    said = log.getvalue().splitlines()
    assert [re.sub(r"[0-9.]+ s$", "N s", line) for line in said] == [
        "reading the bank: 3,000/3,000 entries, N s",
        "training: N s",
        "filling: 10/20 rows, N s",
    ]


def test_a_stage_that_failed_is_not_said_to_have_ended() -> None:
    """What went before it is."""
    log = io.StringIO()

    def fail() -> None:
        with show_progress(log) as progress:
            progress("reading", 1, 1)
            progress("filling", 1, 2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert log.getvalue().startswith("reading: ")
    assert "filling" not in log.getvalue()


def test_a_terminal_gets_a_bar_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With done, total, unit, the time that went and the time that is left."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    terminal = Terminal()
    with show_progress(terminal) as progress:
        progress("reading the bank", 1500, 3000, "entries")
        progress("training", 0, 0)
        progress("filling", 20, 40, "rows")
    said = terminal.getvalue()
    for part in ("reading the bank", "training", "filling", "20", "rows", "elapsed", "left"):
        assert part in said


@pytest.mark.parametrize(
    ("done", "total", "unit", "said"),
    [(1200, 4000, "rows", "1,200/4,000 rows"), (7, 0, "rows", "7 rows"), (7, 9, "", "")],
)
def test_a_count_says_what_is_known(done: int, total: int, unit: str, said: str) -> None:
    """A total that nobody knows is left out, and a number without a unit means nothing."""
    assert count_of(done, total, unit) == said


def test_what_was_done_more_is_added_up() -> None:
    """The stage is told at its beginning, and then with each step."""
    told = []

    def progress(what: str, done: int, total: int, unit: str = "") -> None:
        told.append((what, done, total, unit))

    advance = count_progress(progress, "filling", 5, "rows")
    advance(2)
    advance(3)
    assert told == [("filling", done, 5, "rows") for done in (0, 2, 5)]
