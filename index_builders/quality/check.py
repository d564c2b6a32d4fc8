"""Integrity check of a bank: every record is readable, the log has no gap, every row finds itself.

Works on one consistent state, beside a running server: an operator runs it after a crash, before
an upgrade, or every night.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from simsearch.bank.state_reader import StateReader
from simsearch.bank.store import BankStore
from simsearch.errors import Corrupt
from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.flat.hamming import HammingIndex
from simsearch.types import Fingerprint, Signal

Progress: TypeAlias = Callable[[int], None]
"""Called with how many more entries are done."""

ENTRIES_AT_ONCE = 1024
CHANGES_AT_ONCE = 10_000

SELF_COSINE = 0.999
"""Lowest cosine of a stored vector with its own float16 rounding."""


@dataclass(frozen=True)
class Report:
    """Result of a check: counts of what was read, and the faults found."""

    seq: int
    entries: int
    rows: Mapping[str, int]
    faults: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


@dataclass
class _Findings:
    entries: Counter[int] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def check(store: BankStore, progress: Progress = lambda _: None) -> Report:
    """Check every entry, count and change of the bank, in chunks of bounded memory."""
    with store.reading() as reading:
        findings = _Findings()
        for part in (_check_entries, _check_counts, _check_log):
            try:
                part(reading, findings, progress)
            except Corrupt as fault:
                findings.faults.append(fault.message)
        return Report(
            reading.seq, findings.entries.total(), dict(findings.rows), tuple(findings.faults)
        )


Chunk: TypeAlias = list[tuple[int, int, Fingerprint]]


def _check_entries(reading: StateReader, findings: _Findings, progress: Progress) -> None:
    for chunk in reading.active_chunks(ENTRIES_AT_ONCE):
        _check_chunk(chunk, findings)
        progress(len(chunk))


def _check_chunk(chunk: Chunk, findings: _Findings) -> None:
    """Every row of these entries, in an index of their own, must find its own entry."""
    for _, bank_id, fingerprint in chunk:
        findings.entries[bank_id] += 1
        findings.rows.update(fingerprint.rows())
    for space in {space for *_, f in chunk for space in f.vectors}:
        _check_vectors(
            space, [(k, f.vectors[space]) for k, _, f in chunk if space in f.vectors], findings
        )
    for signal in {signal for *_, f in chunk for signal in f.bits}:
        _check_bits(
            signal, [(k, f.bits[signal]) for k, _, f in chunk if signal in f.bits], findings
        )


def _check_vectors(space: str, entries: list[tuple[int, np.ndarray]], findings: _Findings) -> None:
    rows = np.vstack([r for _, r in entries])
    keys = np.repeat([key for key, _ in entries], [len(r) for _, r in entries])
    index = ExactIndex(rows.shape[1], rows_max=ENTRIES_AT_ONCE)
    index.append(rows, keys, np.zeros(len(rows), np.int64))
    found = index.freeze(0).search(rows, {0: SELF_COSINE})
    _note_lost(space, keys, found.query, found.key, findings)


def _check_bits(signal: Signal, entries: list[tuple[int, np.ndarray]], findings: _Findings) -> None:
    rows = np.vstack([r for _, r in entries])
    keys = np.repeat([key for key, _ in entries], [len(r) for _, r in entries])
    index = HammingIndex(rows.shape[1], rows_max=ENTRIES_AT_ONCE)
    index.append(rows, keys, np.zeros(len(rows), np.int64))
    found = index.freeze(0).search(rows, {0: 0})
    _note_lost(signal, keys, found.query, found.key, findings)


def _note_lost(
    signal: str, keys: np.ndarray, query: np.ndarray, key: np.ndarray, findings: _Findings
) -> None:
    lost = np.ones(len(keys), bool)
    lost[query[keys[query] == key]] = False
    findings.faults += [
        f"entry {k}: its own {signal} row does not find it" for k in sorted({*keys[lost].tolist()})
    ]


def _check_counts(reading: StateReader, findings: _Findings, _: Progress) -> None:
    for bank in reading.banks():
        counted = findings.entries[bank.id]
        if counted != bank.active_entries:
            findings.faults.append(
                f"bank {bank.name!r} says {bank.active_entries} active entries, it has {counted}"
            )


def _check_log(reading: StateReader, findings: _Findings, _: Progress) -> None:
    """Change numbers run from 1 to the end without a gap."""
    expected = 1
    while changes := reading.changes(expected - 1, CHANGES_AT_ONCE):
        numbers = [change.seq for change in changes]
        if numbers != list(range(expected, expected + len(numbers))):
            findings.faults.append(f"the log has a gap after change {expected - 1}")
            return
        expected += len(numbers)
    if expected != reading.seq + 1:
        findings.faults.append(f"the log ends at {expected - 1}, the bank is at {reading.seq}")
