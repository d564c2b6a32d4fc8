"""Entries with opinions: the consensus on an entry, and the export of every opinion as a row."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, BinaryIO, Final

from simsearch.lists.fields import join_cell
from simsearch.types import Entry, Fingerprint, Opinion, OpinionKind

COLUMNS: Final = (
    "bank",
    "entry",
    "kind",
    "actor",
    "time",
    "reason",
    "note",
    "case_id",
    "content_sha256",
    "superseded",
    "seq",
    "labels",
    "source",
    "source_ids",
)


@dataclass(frozen=True)
class EntryWithOpinions:
    """An entry and its opinions: all of them, oldest first, and the newest of each person."""

    bank: str
    entry: Entry
    fingerprint: Fingerprint
    opinions: tuple[Opinion, ...]
    standing: tuple[Opinion, ...]

    @property
    def source_ids(self) -> tuple[str, ...]:
        """The ids of the entry in its source, its own one first."""
        return tuple(filter(None, (self.entry.source_id, *self.entry.aliases)))


@dataclass(frozen=True)
class OpinionsWritten:
    """Counts of entries and records written, and of entries left out, by reason."""

    entries: int
    records: int
    left_out: Mapping[str, int]


class Consensus(Enum):
    """Majority opinion on an entry. MISLABELLED: a correct hit with a wrong label."""

    RIGHT = "right"
    MISLABELLED = "mislabelled"
    WRONG = "wrong"
    UNSURE = "unsure"


def consensus_of(opined: EntryWithOpinions) -> Consensus | None:
    """The consensus, or None where no opinion is about the correctness of the hit."""
    kinds = Counter(opinion.draft.kind for opinion in opined.standing)
    right, mislabelled = kinds[OpinionKind.TRUE_POSITIVE], kinds[OpinionKind.WRONG_LABEL]
    wrong = kinds[OpinionKind.FALSE_POSITIVE]
    if not right + mislabelled + wrong:
        return None
    if right + mislabelled == wrong:
        return Consensus.UNSURE
    if right + mislabelled < wrong:
        return Consensus.WRONG
    return Consensus.MISLABELLED if mislabelled > right else Consensus.RIGHT


# ---------------------------------------------------------------- all opinions


def write_rows(
    entries: Iterable[EntryWithOpinions], file: BinaryIO, *, as_csv: bool
) -> OpinionsWritten:
    """Write every opinion: as CSV with a header, or as JSON lines."""
    count = rows = 0
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        table = csv.writer(text, lineterminator="\n")
        quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        if as_csv:
            table.writerow(COLUMNS)
        for entry in entries:
            count += 1
            for row in _rows(entry):
                rows += 1
                if as_csv:
                    cells = [_cell(row[name]) for name in COLUMNS]
                    # Left to itself, the writer would not quote a carriage return.
                    (quoting if any("\r" in cell for cell in cells) else table).writerow(cells)
                else:
                    text.write(json.dumps(row, ensure_ascii=False) + "\n")
    finally:
        text.detach()  # the file is the caller's to close
    return OpinionsWritten(count, rows, {})


def _rows(opined: EntryWithOpinions) -> Iterator[dict[str, Any]]:
    entry, stand = opined.entry, {opinion.change.seq for opinion in opined.standing}
    for opinion in opined.opinions:
        said, change = opinion.draft, opinion.change
        yield {
            "bank": opined.bank,
            "entry": entry.key,
            "kind": said.kind.name.lower(),
            "actor": change.actor,
            "time": datetime.fromtimestamp(change.time_us / 1e6, UTC).isoformat(),
            "reason": change.reason,
            "note": said.note,
            "case_id": said.case_id,
            "content_sha256": said.content_sha256.hex(),
            "superseded": change.seq not in stand,
            "seq": change.seq,
            "labels": list(entry.labels),
            "source": entry.source,
            "source_ids": list(opined.source_ids),
        }


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return join_cell(value) if isinstance(value, list) else str(value)
