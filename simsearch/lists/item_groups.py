"""Item grouping: adjacent records of the same group become one item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from simsearch.errors import BadRequest
from simsearch.lists.fields import check_count, check_text
from simsearch.lists.rows import About, Limits, ListRow, RowContent

T = TypeVar("T", str, int)


class ItemGrouper:
    """Takes rows of one record each, in order, and returns completed items. A group with more
    contents than an item may hold becomes several items of that name."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._first: ListRow | None = None
        self._about = About()
        self._contents: list[RowContent] = []
        self._records = 0

    @property
    def group(self) -> str:
        """The group of the open item, or "" if there is none."""
        return self._first.group if self._first else ""

    def add(self, row: ListRow) -> Sequence[ListRow]:
        """Add a row; returns the items that it completes. Raises BadRequest and LimitExceeded,
        without a change, where the row contradicts the open item."""
        if not row.group:
            return (*self.flush(), row)
        if row.group == self.group and not self._is_full(row):
            self._go_on(row)
            return ()
        done = self.flush()
        self._begin(row)
        return done

    def flush(self) -> Sequence[ListRow]:
        """Complete the open item, if any, at the end of the list or of its group."""
        first, self._first = self._first, None
        if first is None:
            return ()
        contents = tuple(self._contents)
        return (
            ListRow(first.file, first.number, contents, self._about, first.group, self._records),
        )

    def _is_full(self, row: ListRow) -> bool:
        return len(self._contents) + len(row.contents) > self._limits.contents_max

    def _begin(self, row: ListRow) -> None:
        self._first, self._about = row, row.about
        self._contents, self._records = list(row.contents), row.records

    def _go_on(self, row: ListRow) -> None:
        if row.about != self._about:
            self._about = merged(self._about, row.about, self._limits)
        self._contents += row.contents
        self._records += row.records


def merged(a: About, b: About, limits: Limits) -> About:
    """The details of two records of one item. Raises BadRequest, LimitExceeded."""
    if (a.withdrawn, a.state) != (b.withdrawn, b.state):
        raise BadRequest("the row and those of its entry before it differ in action or state")
    both = replace(
        a,
        labels=tuple(dict.fromkeys((*a.labels, *b.labels))),
        source=_either(a.source, b.source, "source"),
        source_ids=tuple(dict.fromkeys((*a.source_ids, *b.source_ids))),
        severity=_either(a.severity, b.severity, "severity"),
        note="\n".join(dict.fromkeys(filter(None, (a.note, b.note)))),
        expires_us=_either(a.expires_us, b.expires_us, "expires"),
    )
    check_count(len(both.labels), limits.labels_max, "labels")
    check_count(len(both.source_ids), limits.source_ids_max, "source ids")
    check_text(both.note, "note", limits.note_chars_max)
    return both


def _either(a: T, b: T, name: str) -> T:
    if a and b and a != b:
        raise BadRequest(f"the row and those of its entry before it differ in {name}")
    return a or b
